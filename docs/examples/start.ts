/** `npm start`: the demonstration; with QEMU's options (`npm start -- -machine pc -nographic`) the machine that they describe. */
if (process.argv[2]?.startsWith('-')) await import('../../machines/program.ts');
else await import('./demo.ts');

export {};
