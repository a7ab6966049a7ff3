/** The environment less what has each Node process read and parse a file of certificates before its first line (docs/design/start.md). */
export const ENVIRONMENT: NodeJS.ProcessEnv = { ...process.env };
delete ENVIRONMENT['NODE_EXTRA_CA_CERTS'];
