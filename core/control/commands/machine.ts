import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { numaFromQapi } from '../startup/numa-option.ts';
import { setAction } from '../startup/policy.ts';

/** CPU hot-plug exists on machines of these families. */
const hasHotplugCpus = (type: string): boolean => /^pc-|^q35|^pc$|^isapc/.test(type);

/** Devices that a guest reports ACPI events to. */
const ACPI_DEVICES = new Set(['PIIX4_PM', 'ICH9-LPC', 'acpi-ged']);

export function machineCommands(program: Program): Handlers<QmpSession> {
  return {
    'query-status': () => {
      const status = program.runState;
      return {
        running: status === 'running',
        singlestep: program.line.has('singlestep'),
        status: status === 'preconfig' ? 'prelaunch' : status,
      };
    },
    stop: () => program.machine.stop('paused'),
    cont: () => cont(program),
    system_reset: () => program.machine.power.requestReset('host-qmp-system-reset'),
    system_powerdown: () => program.machine.power.pressPowerButton(),
    system_wakeup: () => {
      if (program.runState !== 'suspended') throw new QmpError('Unable to wake up: guest is not in suspended state');
      program.machine.power.requestWakeup('other');
    },
    'inject-nmi': () => program.machine.power.injectNmi(),
    'set-numa-node': option => program.machine.numa.set(numaFromQapi(option)),
    'set-action': actions => {
      for (const [event, action] of Object.entries(actions)) {
        if (typeof action === 'string') setAction(program.machine.power.policy, event, action);
      }
    },
    'watchdog-set-action': ({ action }) => {
      setAction(program.machine.power.policy, 'watchdog', action);
    },
    'query-name': () => {
      const name = program.line.merged('name').string('guest');
      return { ...(name !== undefined && { name }) };
    },
    'query-uuid': () => ({ UUID: (program.line.last('uuid') ?? '00000000-0000-0000-0000-000000000000').toLowerCase() }),
    'query-kvm': async () => ({ enabled: program.accelerator.accelerator.name === 'kvm', present: await kvmPresent() }),
    'query-target': () => ({ arch: 'x86_64' }),
    'query-current-machine': () => ({ 'wakeup-suspend-support': program.machine.type.type !== 'none' }),
    'query-machines': async () => {
      await program.registry.loadAll();
      return program.registry.machines().map(type => ({
        name: type.type,
        ...(type.isDefault && { 'is-default': true }),
        'cpu-max': type.maxCpus,
        'hotpluggable-cpus': hasHotplugCpus(type.type),
        'numa-mem-supported': false,
        deprecated: false,
        ...(type.type !== 'none' && { 'default-cpu-type': `${type.defaultCpuModel}-x86_64-cpu` }),
        'default-ram-id': type.defaultRamId,
        ...(type.aliases[0] !== undefined && { alias: type.aliases[0] }),
      }));
    },
    'x-query-numa': async () => ({
      'human-readable-text': (await import('../hmp/info/machine.ts')).numaReport(program.machine),
    }),
    'x-query-irq': async () => ({
      'human-readable-text': (await import('../hmp/interrupt-report.ts')).interruptCounts(program.machine),
    }),
    'query-acpi-ospm-status': () => {
      const found = [...program.machine.devices()].some(({ typeName }) => ACPI_DEVICES.has(typeName));
      if (!found) throw new QmpError('command is not supported, missing ACPI device');
      return [...program.machine.devices()].flatMap(device => (reportsOspm(device) ? device.ospmStatus() : []));
    },
    'query-vm-generation-id': () => {
      const device = [...program.machine.devices()].find(candidate => candidate.typeName === 'vmgenid');
      const guid = device?.property('guid')?.get();
      if (typeof guid !== 'string') throw new QmpError('VM Generation ID device not found');
      return { guid };
    },
    'rtc-reset-reinjection': () => undefined,
  };
}

/** A device through which the guest reports what became of ACPI notifications (`_OST`). */
interface OspmReporter {
  ospmStatus(): { slot: string; 'slot-type': 'CPU' | 'DIMM'; source: number; status: number }[];
}

function reportsOspm<T extends object>(device: T): device is T & OspmReporter {
  return 'ospmStatus' in device && typeof device.ospmStatus === 'function';
}

/** Lets the guest run, if nothing stands against it. */
export async function cont(program: Program): Promise<void> {
  const { machine } = program;
  const state = machine.runState;
  if (state === 'inmigrate') return;
  if (state === 'shutdown' || state === 'internal-error')
    throw new QmpError('Resetting the Virtual Machine is required');
  if (state === 'suspended') return;
  // After a migration the images are the other side's: it may have given up.
  await program.takeImages();
  machine.start();
}

async function kvmPresent(): Promise<boolean> {
  const { accessSync, constants } = await import('node:fs');
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
