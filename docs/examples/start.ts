/** `npm start`: the demonstration; with QEMU's options (`npm start -- -machine pc -nographic`) the machine that they describe. */
if (process.argv[2]?.startsWith('-')) await import('../../main.ts');
else await import('./demo.ts');

export {};
