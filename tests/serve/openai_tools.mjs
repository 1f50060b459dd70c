// Calls of tools as the npm package openai reads them: node openai_tools.mjs URL NODE_MODULES
// serve_tools_socket_test.cpp plays the model: its answers in turn are those that this asks for.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [url, modules] = process.argv.slice(2);
const { OpenAI } = createRequire(join(modules, 'x.js'))('openai');
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0 });
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};
const ask = { model: 'm', messages: [{ role: 'user', content: 'Rain?' }], tools: [weather] };
const expected = [['weather', '{"city": "Paris"}'], ['weather', '{"city": "Łódź"}']];
const plain = (calls) => calls.map((call) => [call.function.name, call.function.arguments]);
const ids = new Set();

// Whole: two calls and nothing else.
const whole = (await client.chat.completions.create(ask)).choices[0];
assert.equal(whole.finish_reason, 'tool_calls');
assert.equal(whole.message.content, null);
assert.deepEqual(plain(whole.message.tool_calls), expected);
for (const call of whole.message.tool_calls) ids.add(call.id);

// Streamed, as the package joins it, and as it comes: a call begins with its name and no arguments.
const stream = client.chat.completions.stream(ask);
const deltas = [];
const done = [];
stream.on('chunk', (chunk) => deltas.push(...(chunk.choices[0].delta.tool_calls ?? [])));
stream.on('tool_calls.function.arguments.done', (call) => done.push([call.name, call.arguments]));
const joined = (await stream.finalChatCompletion()).choices[0];
assert.equal(joined.finish_reason, 'tool_calls');
assert.equal(joined.message.content, 'Let me see. ');
assert.deepEqual(plain(joined.message.tool_calls), expected);
assert.deepEqual(done, expected);
for (const call of joined.message.tool_calls) ids.add(call.id);
assert.equal(ids.size, 4);
for (const index of [0, 1]) {
  const own = deltas.filter((delta) => delta.index === index);
  assert.deepEqual(Object.keys(own[0]), ['index', 'id', 'type', 'function']);
  assert.equal(own[0].type, 'function');
  for (const later of own.slice(1)) assert.deepEqual(Object.keys(later), ['index', 'function']);
}

// The whole way: the package calls the function and asks again, whole and streamed.
for (const stream of [false, true]) {
  const asked = [];
  const lookUp = (city) => (asked.push(city), 'wet');
  const tool = { ...weather.function, function: (text) => lookUp(JSON.parse(text).city) };
  const runner = client.chat.completions.runTools({ ...ask, stream, tools: [{ type: 'function', function: tool }] });
  assert.equal(await runner.finalContent(), 'It rains.');
  assert.deepEqual(asked, ['Paris', 'Łódź']);
}

// At most one; and calls that are not asked for are text.
const one = (await client.chat.completions.create({ ...ask, parallel_tool_calls: false })).choices[0];
assert.deepEqual(plain(one.message.tool_calls), expected.slice(0, 1));
const none = (await client.chat.completions.create({ ...ask, tool_choice: 'none' })).choices[0];
assert.equal(none.message.tool_calls, undefined);
assert.ok(none.message.content.includes('weather'));
assert.equal(none.finish_reason, 'stop');
console.log('done');
