/** QEMU's run states (QAPI RunState). */
export const RUN_STATES = [
  'debug',
  'inmigrate',
  'internal-error',
  'io-error',
  'paused',
  'postmigrate',
  'prelaunch',
  'finish-migrate',
  'restore-vm',
  'running',
  'save-vm',
  'shutdown',
  'suspended',
  'watchdog',
  'guest-panicked',
  'colo',
  'preconfig',
] as const;
export type RunState = (typeof RUN_STATES)[number];

/** States from which the guest cannot go on before it was reset. */
export function needsReset(state: RunState): boolean {
  return state === 'internal-error' || state === 'shutdown';
}
