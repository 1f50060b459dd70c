/* A C host of the engine: lends its device and queue, loads MODEL_DIR, generates for several
 * requests at once, hands one of them from one engine to another. */
#include <hadal/hadal_engine.h>

#include "vulkan_host.h"

enum { MOST = 64 };

/* A host that submits to the queue itself would lock a mutex here. */
static int locked;
static void lock(void* user) {
  (void)user;
  HOST_CHECK(!locked);
  locked = 1;
}
static void unlock(void* user) {
  (void)user;
  HOST_CHECK(locked);
  locked = 0;
}
static int show(void* user, uint64_t done, uint64_t total) {
  if (done == total) printf("%s: %llu bytes\n", (const char*)user, (unsigned long long)total);
  return 0;
}

typedef struct answer {
  hadal_request_id id;
  uint32_t tokens[MOST];
  int count;
  char text[1024];
  hadal_finish finish;
} answer;

/* Steps until nothing is left; entries go to the answers of their requests. */
static void run(hadal_engine* engine, answer* answers, int n) {
  hadal_error error = HADAL_ERROR_INIT;
  while (!hadal_engine_idle(engine)) {
    const hadal_engine_token* const* tokens = NULL;
    size_t count = 0;
    HOST_OK(hadal_engine_step(engine, &tokens, &count, &error));
    for (size_t t = 0; t < count; ++t) {
      int i = 0;
      while (i < n && answers[i].id != tokens[t]->request) ++i;
      HOST_CHECK(i < n && tokens[t]->status == HADAL_OK);
      if (tokens[t]->has_token) answers[i].tokens[answers[i].count++] = tokens[t]->id;
      strncat(answers[i].text, tokens[t]->text,
              sizeof(answers[i].text) - strlen(answers[i].text) - 1);
      answers[i].finish = tokens[t]->finish;
    }
  }
}

static hadal_engine* load(host_device* device, const hadal_context_info* context, const char* dir) {
  hadal_error error = HADAL_ERROR_INIT;
  hadal_engine_options options;
  memset(&options, 0, sizeof(options));
  options.struct_size = sizeof(options);
  options.model_dir = dir;
  options.context = context;
  options.queue = device->queue;
  options.lock_queue = lock;
  options.unlock_queue = unlock;
  options.max_context = 256;
  options.max_requests = 4;
  options.progress = show;
  options.progress_user = (void*)"loaded";
  hadal_engine* engine = NULL;
  HOST_OK(hadal_engine_load(&options, &engine, &error));
  return engine;
}

int main(int argc, char** argv) {
  static host_instance instance;
  static host_device device;
  VkPhysicalDevice devices[8];
  hadal_error error = HADAL_ERROR_INIT;
  if (argc != 2) {
    fprintf(stderr, "usage: host_engine MODEL_DIR\n");
    return 2;
  }
  if (!host_instance_create(&instance) || host_physical_devices(&instance, devices) == 0) {
    fprintf(stderr, "no Vulkan device or validation layer\n");
    return 77;
  }
  host_device_create(&instance, devices[0], &device);
  const hadal_context_info context = host_context_info(&device);
  hadal_engine* engine = load(&device, &context, argv[1]);
  hadal_engine_facts facts;
  memset(&facts, 0, sizeof(facts));
  facts.struct_size = sizeof(facts);
  HOST_OK(hadal_engine_describe(engine, &facts, &error));
  printf("%s on %s (%s), %u pages\n", facts.architecture, facts.device_name, facts.driver,
         facts.cache_pages);

  /* The same prompt twice beside another one: neighbours change nothing. */
  static answer answers[3];
  hadal_engine_request request;
  memset(&request, 0, sizeof(request));
  request.struct_size = sizeof(request);
  request.max_new_tokens = 24;
  for (int i = 0; i < 3; ++i) {
    request.text = i == 1 ? "The king had three daughters" : "Once upon a time";
    HOST_OK(hadal_engine_add(engine, &request, &answers[i].id, &error));
  }
  run(engine, answers, 3);
  for (int i = 0; i < 3; ++i) printf("%d: %s\n", i, answers[i].text);
  HOST_CHECK(answers[0].count > 4 && answers[0].count == answers[2].count);
  HOST_CHECK(memcmp(answers[0].tokens, answers[2].tokens, sizeof(answers[0].tokens)) == 0);
  HOST_CHECK(strcmp(answers[0].text, answers[2].text) == 0);

  /* Prefill here, decode in another engine: the same tokens. */
  static answer begun[1], rest[1];
  request.flags = HADAL_REQUEST_PREFILL_ONLY;
  HOST_OK(hadal_engine_add(engine, &request, &begun[0].id, &error));
  run(engine, begun, 1);
  HOST_CHECK(begun[0].finish == HADAL_FINISH_EXPORTED && begun[0].count == 1);
  const void* state = NULL;
  size_t bytes = 0;
  HOST_OK(hadal_engine_export(engine, begun[0].id, &state, &bytes, &error));
  hadal_engine* other = load(&device, &context, argv[1]);
  HOST_OK(hadal_engine_import(other, state, bytes, NULL, NULL, &rest[0].id, &error));
  hadal_engine_destroy(engine); /* the state was copied */
  run(other, rest, 1);
  HOST_CHECK(begun[0].tokens[0] == answers[0].tokens[0] && rest[0].count == answers[0].count - 1);
  HOST_CHECK(
      memcmp(rest[0].tokens, answers[0].tokens + 1, sizeof(uint32_t) * (size_t)rest[0].count) == 0);

  request.max_new_tokens = 0;
  request.temperature = -1.0f;
  HOST_CHECK(hadal_engine_check(other, &request, &error) == HADAL_ERROR_INVALID_ARGUMENT);
  printf("refused: %s\n", error.message);
  hadal_engine_destroy(other);
  host_device_destroy(&device);
  host_instance_destroy(&instance);
  HOST_CHECK(instance.messages == 0 && !locked);
  return 0;
}
