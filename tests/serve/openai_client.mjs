// The npm package openai as a client: node openai_client.mjs URL KEY
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.env.HADAL_SERVE_NODE_MODULES, 'x.js'));
const { OpenAI, NotFoundError, BadRequestError, AuthenticationError, APIUserAbortError } = require('openai');
const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const model = models[0];
assert.equal((await client.models.retrieve(model)).id, model);

// Completions, whole and streamed.
const ask = { model, prompt: 'Once upon a time', max_tokens: 24, temperature: 0 };
const whole = await client.completions.create(ask);
assert.equal(whole.usage.completion_tokens, 24);
let text = '';
let usage;
for await (const part of await client.completions.create(
    { ...ask, stream: true, stream_options: { include_usage: true } })) {
  text += part.choices[0]?.text ?? '';
  usage = part.usage ?? usage;
}
assert.equal(text, whole.choices[0].text);
assert.deepEqual(usage, whole.usage);

// Chat, whole and by the package's own accumulating stream.
const messages = [{ role: 'system', content: 'Tell.' }, { role: 'user', content: 'A tale' }];
const talk = { model, messages, temperature: 0, max_completion_tokens: 24, logprobs: true, top_logprobs: 2 };
const answer = await client.chat.completions.create(talk);
assert.equal(answer.choices[0].message.role, 'assistant');
assert.equal(answer.choices[0].logprobs.content.length, 24);
const stream = client.chat.completions.stream(talk);
const final = await stream.finalChatCompletion();
assert.equal(final.choices[0].message.content, answer.choices[0].message.content);
assert.deepEqual(final.choices[0].logprobs.content, answer.choices[0].logprobs.content);
assert.equal(final.choices[0].finish_reason, answer.choices[0].finish_reason);

// A call that is demanded, whole and streamed: a schema holds its arguments.
const schema = { type: 'object', properties: { days: { type: 'integer', minimum: 1, maximum: 9 } }, required: ['days'] };
const call = {
  model, messages, temperature: 0, tools: [{ type: 'function', function: { name: 'plan', parameters: schema } }],
  tool_choice: { type: 'function', function: { name: 'plan' } },
};
const planned = (await client.chat.completions.create(call)).choices[0];
assert.equal(planned.finish_reason, 'tool_calls');
assert.ok([1, 2, 3, 4, 5, 6, 7, 8, 9].includes(JSON.parse(planned.message.tool_calls[0].function.arguments).days));
const replanned = (await client.chat.completions.stream(call).finalChatCompletion()).choices[0];
assert.deepEqual(replanned.message.tool_calls[0].function.name, 'plan');
assert.equal(replanned.message.tool_calls[0].function.arguments, planned.message.tool_calls[0].function.arguments);

// Errors have the package's own classes.
await assert.rejects(client.completions.create({ ...ask, model: 'gpt-4' }), NotFoundError);
await assert.rejects(client.completions.create({ ...ask, max_tokens: -1 }), (error) =>
    error instanceof BadRequestError && error.param === 'max_tokens' && error.type === 'invalid_request_error');
const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'wrong', maxRetries: 0 });
await assert.rejects(stranger.models.list(), AuthenticationError);

// Cancellation, of a stream and of a request that waits.
const long = { ...ask, max_tokens: 2000, ignore_eos: true };
const cut = await client.completions.create({ ...long, stream: true });
let parts = 0;
for await (const part of cut) {
  if (++parts === 3) cut.controller.abort();
}
assert.ok(parts < 2000);
const abort = new AbortController();
setTimeout(() => abort.abort(), 50);
await assert.rejects(client.completions.create(long, { signal: abort.signal }), APIUserAbortError);
const pages = async () => {
  const response = await fetch(`${url}/metrics`, { headers: { Authorization: `Bearer ${apiKey}` } });
  return Number(/^hadal_cache_pages_used (\d+)$/m.exec(await response.text())[1]);
};
for (let tries = 0; await pages() !== 0; ++tries) assert.ok(tries < 1000, 'pages were not freed');
console.log(`  openai on node ${process.version}: ${parts} parts before the abort`);
