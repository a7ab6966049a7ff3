import type { BlockDriver } from '../driver.ts';
import { start } from '../pending.ts';
import type { ReopenSteps, ReopenTarget } from '../reopen-steps.ts';
import { prepareForWriting, reload } from './loading.ts';
import { Qcow2Node } from './node.ts';
import { type Qcow2Runtime, RUNTIME_OPTIONS, runtimeOf, takeOptions } from './runtime-options.ts';

function stepsOf(node: Qcow2Node, { settings, options, otherFile }: ReopenTarget): ReopenSteps {
  const before = node.runtime;
  const { readOnly } = node;
  const after: Qcow2Runtime | undefined =
    options === undefined ? undefined : runtimeOf(takeOptions(options, settings.discard), node.image);
  // Others may have the file then.
  const letsGo = !readOnly && (settings.readOnly || otherFile);
  const cannotWait = after !== undefined && before.lazyRefcounts && !after.lazyRefcounts;
  return {
    async prepare() {
      if (readOnly) return;
      await node.flush();
      if (letsGo) await start(node.exclusively(node.putDown()));
      // With nothing left to write, the tables in memory can be forgotten.
      else if (cannotWait) await start(node.exclusively(node.markClean()));
      else if (after !== undefined) await start(node.exclusively(node.settleTables()));
    },
    commit() {
      if (after !== undefined) node.configure(after);
    },
    async activate() {
      if (otherFile) await start(node.exclusively(reload(node)));
      else if (readOnly && !settings.readOnly) await start(prepareForWriting(node));
    },
    revert() {
      if (after !== undefined) node.configure(before);
    },
    async abort() {
      if (otherFile) await start(node.exclusively(reload(node)));
      else if (letsGo) await start(prepareForWriting(node));
    },
  };
}

/** An open image can be given other options, and another file. */
export const reopening: NonNullable<BlockDriver['reopening']> = {
  resettable: RUNTIME_OPTIONS,
  steps: (node, target) => (node instanceof Qcow2Node ? stepsOf(node, target) : {}),
};
