import { command } from '../declare.ts';
import { array, enumeration, int, opt, str, struct } from '../types.ts';

export const QMPCapability = enumeration('QMPCapability', ['oob']);
export const VersionTriple = struct('VersionTriple', { major: int, minor: int, micro: int });
export const VersionInfo = struct('VersionInfo', { qemu: VersionTriple, package: str });
export const CommandInfo = struct('CommandInfo', { name: str });

export const commands = {
  qmp_capabilities: command('Ends negotiation and enables the capabilities that the client asks for', {
    args: { enable: opt(array(QMPCapability)) },
    preconfig: true,
  }),
  'query-version': command('The version of the protocol that is spoken', { returns: VersionInfo, preconfig: true }),
  'query-commands': command('Names of all commands', { returns: array(CommandInfo), preconfig: true }),
  quit: command('Ends the program', { preconfig: true }),
};
