import type { CpuState } from '../../accel/cpu-state.ts';
import { GuestNoteSource } from '../../firmware/vmcoreinfo.ts';
import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type { DumpGuestMemoryFormat, DumpQueryResult } from '../qapi/schema/dump.ts';
import { writeElf } from './elf-dump.ts';
import { clip, type GuestBlock, guestBlocks, type MemoryMapping, plainMappings, within } from './guest-blocks.ts';
import { writeKdump } from './kdump.ts';
import { cpuNotes, type GuestNoteText, guestNote, isLongMode } from './notes.ts';
import { DumpOutput } from './output.ts';
import { isPaging, pagedMappings } from './page-tables.ts';

type Format = Value<typeof DumpGuestMemoryFormat>;
type Result = Value<typeof DumpQueryResult>;

export interface DumpRequest {
  /** Whether the dump says where the guest's page tables put its memory. */
  readonly paging: boolean;
  readonly protocol: string;
  readonly detach: boolean;
  /** Only this part of physical memory. */
  readonly range: { readonly begin: number; readonly length: number } | undefined;
  readonly format: Format;
}

/** What {@link MemoryDump} can write. */
export const DUMP_FORMATS: readonly Format[] = ['elf', 'kdump-zlib'];

/** Writing the guest's memory and registers to a file, for debuggers. The guest stands still meanwhile. */
export class MemoryDump {
  readonly #program: Program;
  #status: Result['status'] = 'none';
  #completed = 0;
  #total = 0;

  constructor(program: Program) {
    this.#program = program;
  }

  /** `query-dump`. */
  get result(): Result {
    return { status: this.#status, completed: this.#completed, total: this.#total };
  }

  /** `dump-guest-memory`: returns once all is written, or with `detach` once it has begun. @throws QmpError */
  async start(request: DumpRequest): Promise<void> {
    const program = this.#program;
    const { machine } = program;
    const { format, paging, range } = request;
    if (program.runState === 'inmigrate') throw new QmpError('Dump not allowed during incoming migration.');
    if (this.#status === 'active') throw new QmpError('There is a dump in process, please wait.');
    if (format !== 'elf' && (paging || range !== undefined))
      throw new QmpError("kdump-compressed format doesn't support paging or filter");
    if (!DUMP_FORMATS.includes(format)) throw new QmpError(`${format} is not available now`);
    if (range?.length === 0) throw new QmpError("Invalid parameter 'length'");
    const all = guestBlocks(machine.memory);
    const blocks = range === undefined ? all : within(all, range.begin, range.length);
    if (all.length === 0) throw new QmpError('dump: no guest memory to dump');
    if (blocks.length === 0) throw new QmpError("Invalid parameter 'begin'");
    const out = await DumpOutput.open(request.protocol, name => program.takeNamedFd(name));
    const before = machine.runState;
    if (before === 'running') machine.stop('save-vm');
    this.#status = 'active';
    this.#completed = 0;
    this.#total = blocks.reduce((sum, { start, end }) => sum + end - start, 0);
    const done = this.#write(out, request, blocks).finally(() => {
      if (before === 'running' && machine.runState === 'save-vm') machine.start();
    });
    if (request.detach) done.catch(() => undefined);
    else await done;
  }

  async #write(out: DumpOutput, { format, paging }: DumpRequest, blocks: readonly GuestBlock[]): Promise<void> {
    const { machine } = this.#program;
    const { memory } = machine;
    let failure: string | undefined;
    try {
      const cpus = machine.cpus.plugged.flatMap(({ index }) => machine.vcpu(index)?.readState() ?? []);
      const ofCpus = cpuNotes(cpus);
      const longMode = isLongMode(cpus[0]);
      const { note, vmcoreinfo } = this.#guestNote();
      const notes = Buffer.concat([ofCpus, note]);
      const wrote = (bytes: number): void => {
        this.#completed += bytes;
      };
      if (format === 'elf') {
        const mappings = this.#mappings(cpus, paging, blocks);
        await writeElf(out, { longMode, notes, blocks, mappings, memory }, wrote);
      } else {
        const info = vmcoreinfo && { ...vmcoreinfo, offset: ofCpus.length + vmcoreinfo.offset };
        await writeKdump(out, { notes, vmcoreinfo: info, blocks, memory, cpuCount: cpus.length, longMode }, wrote);
      }
      await out.close();
    } catch (error) {
      failure = `dump: failed to save memory: ${error instanceof Error ? error.message : String(error)}`;
      await out.close().catch(() => undefined);
    }
    this.#status = failure === undefined ? 'completed' : 'failed';
    this.#program.emit('DUMP_COMPLETED', { result: this.result, ...(failure !== undefined && { error: failure }) });
    if (failure !== undefined) throw new QmpError(failure);
  }

  /** The note of the guest's kernel, where it has told of one; whatever is wrong with it, the rest is dumped. */
  #guestNote(): GuestNoteText {
    const { machine, report } = this.#program;
    const none: GuestNoteText = { note: Buffer.alloc(0), vmcoreinfo: undefined };
    const source = [...machine.devices()].find(device => device instanceof GuestNoteSource);
    if (source === undefined) return none;
    const found = source.note === undefined ? 'guest note is not present' : guestNote(source.note, machine.memory);
    if (typeof found !== 'string') return found;
    report.warn(found);
    return none;
  }

  #mappings(cpus: readonly CpuState[], paging: boolean, blocks: readonly GuestBlock[]): MemoryMapping[] {
    const cpu = paging ? cpus.find(isPaging) : undefined;
    return cpu === undefined ? plainMappings(blocks) : clip(pagedMappings(cpu, this.#program.machine.memory), blocks);
  }
}
