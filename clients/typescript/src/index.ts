/**
 * Stepstream for TypeScript and JavaScript: records what an agent does as a run of steps, and sends
 * each step to a gateway while the run is going on.
 */
import { Client } from "./client.ts";

const client = new Client();

export const configure = client.configure.bind(client);
export const run = client.run.bind(client) as Client["run"];
export const step = client.step.bind(client) as Client["step"];
export const tool = client.tool.bind(client) as Client["tool"];
export const llm = client.llm.bind(client) as Client["llm"];
export const retrieval = client.retrieval.bind(client) as Client["retrieval"];
export const wrap = client.wrap.bind(client) as Client["wrap"];
export const startRun = client.startRun.bind(client);
export const startStep = client.startStep.bind(client);
export const within = client.within.bind(client) as Client["within"];
export const currentStep = client.currentStep.bind(client);
export const traceHeaders = client.traceHeaders.bind(client);
export const continueRun = client.continueRun.bind(client) as Client["continueRun"];
export const flush = client.flush.bind(client);
export const shutdown = client.shutdown.bind(client);
export const sendCommand = client.sendCommand.bind(client);
/** Events so far: delivered, failed, dropped and pending. */
export const counts = () => client.counts;

export { Client, type CommandRequest, type StepKind } from "./client.ts";
export type { IncomingHeaders } from "./context.ts";
export { type Command, RunStopped } from "./control.ts";
export type { Logger } from "./log.ts";
export type { CaptureRules, Mode } from "./privacy.ts";
export { isSecretName, withoutSecrets } from "./redaction.ts";
export type { Counts } from "./sender.ts";
export type { Settings } from "./settings.ts";
export { type Document, type RunFields, Step, type StepFields } from "./step.ts";
export { ACTIONS, type Action, KINDS, type Kind, type Usage } from "./tables.ts";
