/* hadal's engine as C: many requests at once over one DeepSeek-V3-family checkpoint. C99.
 *
 *   load   a checkpoint, onto the host's device or one of the engine's own   hadal_engine_load
 *   add    requests: prompt, sampling, where to stop                         hadal_engine_add
 *   step   one batch on the device, then read the tokens that it gave        hadal_engine_step
 *
 * A library of its own, libhadal_engine, beside libhadal (hadal/hadal.h, whose statuses, errors and
 * rules of structures hold here, too): it reads files and needs a tokenizer, which a host of the
 * kernels does not. CMake: hadal::engine; pkg-config: hadal-engine; both bring libhadal.
 *
 * What a request gets does not depend on who shares its steps: tokens and log-probabilities are
 * those of the request alone, to the bit.
 *
 * What it never does: print, abort, read the environment, throw, or keep process-wide state that
 * changes. What it does and libhadal does not, because it is an engine:
 *
 *   device memory  is allocated by load (weights, workspaces, cache, swap space); by step where
 *                  requests need more room for penalties, biases and masks than any before; by
 *                  export for the call, and by import until the request's rows are in the cache
 *   submissions    are made by load, warm_up, step, export and import, each of which waits for its
 *                  own; to the host's queue under the host's lock where it gave one
 *   threads        live in a call that was asked for them: read_ahead_bytes, warm_up's `threads`
 *   files          are read from model_dir, and written to cache_dir where it was given
 *
 * Threads. An engine is one thread's at a time: calls may come from any thread, but not two at
 * once, and not from its callbacks; one that does is refused (INVALID_ARGUMENT) and breaks nothing,
 * except that destroying needs that no call is under way. hadal_engine_check, hadal_engine_describe
 * and the functions of its tokenizer may be called beside anything. Engines share nothing.
 *
 * Callbacks run on the calling thread (warm_up: on each of its threads), inside the call. One that
 * throws (a C++ host) ends what it was asked for; the exception goes no further.
 *
 * Texts are UTF-8. Where a function fills an array of the caller's, *count is its room and becomes
 * the number written; with NULL for the array only the number is told; too little room is
 * INVALID_ARGUMENT and names the number. Text that is written so has no zero at its end.
 */
#ifndef HADAL_HADAL_ENGINE_H
#define HADAL_HADAL_ENGINE_H

#include <hadal/hadal.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the library that is loaded, as hadal_version. Any thread. */
HADAL_API uint32_t hadal_engine_version(void);

/* ---- tokenizer and chat template ------------------------------------------------------------- */

/* The text side of a checkpoint; needs no device. Immutable: any thread, several at once. */
typedef struct hadal_tokenizer hadal_tokenizer;

/* Reads DIR/tokenizer.json, tokenizer_config.json and the chat template, if there is one. Errors:
 * IO, MALFORMED, UNSUPPORTED (a kind of tokenizer that hadal does not have). */
HADAL_API hadal_status hadal_tokenizer_load(const char* model_dir, hadal_tokenizer** tokenizer,
                                            hadal_error* error);
/* NULL is a no-op. Not for an engine's own (hadal_engine_tokenizer). */
HADAL_API void hadal_tokenizer_destroy(hadal_tokenizer* tokenizer);

#define HADAL_NO_TOKEN 0xffffffffu /* there is no such token */
/* What hadal_tokenizer_describe says. */
typedef struct hadal_tokenizer_facts {
  size_t struct_size;
  uint32_t vocab_size;        /* largest id + 1, added tokens included */
  uint32_t bos_id, eos_id;    /* HADAL_NO_TOKEN: there is none */
  VkBool32 has_chat_template; /* that can be read */
} hadal_tokenizer_facts;
/* Facts about the vocabulary. */
HADAL_API hadal_status hadal_tokenizer_describe(const hadal_tokenizer* tokenizer,
                                                hadal_tokenizer_facts* facts, hadal_error* error);

/* HADAL_TEXT_ bits. */
typedef uint32_t hadal_text_flags;
enum {
  HADAL_TEXT_PLAIN = 1 /* encode: no special tokens around the text (what a chat template wrote has
                          them); decode: special tokens are shown, too */
};
/* Text of `bytes` bytes to ids; special tokens that stand in it become their ids. Errors:
 * INVALID_ARGUMENT (not UTF-8: the offset). */
HADAL_API hadal_status hadal_tokenizer_encode(const hadal_tokenizer* tokenizer, const char* text,
                                              size_t bytes, hadal_text_flags flags, size_t* count,
                                              uint32_t* ids, hadal_error* error);
/* Ids to text. Errors: INVALID_ARGUMENT for an id outside the vocabulary. */
HADAL_API hadal_status hadal_tokenizer_decode(const hadal_tokenizer* tokenizer, const uint32_t* ids,
                                              size_t ids_count, hadal_text_flags flags,
                                              size_t* count, char* text, hadal_error* error);
/* The id of a token by its own text ("<|end_of_text|>"). Errors: INVALID_ARGUMENT, no such token.
 */
HADAL_API hadal_status hadal_tokenizer_id(const hadal_tokenizer* tokenizer, const char* token,
                                          uint32_t* id, hadal_error* error);

/* HADAL_CHAT_ bits. */
typedef uint32_t hadal_chat_flags;
enum { HADAL_CHAT_NO_GENERATION_PROMPT = 1 /* the last message is the last */ };
/* A conversation, as JSON texts with a zero at their end, in the form that the template reads. */
typedef struct hadal_chat {
  size_t struct_size;
  const char* messages;   /* an array of objects with role, content ...; required */
  const char* tools;      /* an array; NULL: none */
  const char* variables;  /* an object of what else the template reads ({"thinking": true}); NULL */
  hadal_chat_flags flags; /* HADAL_CHAT_ bits */
} hadal_chat;
/* The text that the model continues; encode it with HADAL_TEXT_PLAIN. Errors: INVALID_ARGUMENT for
 * what is not JSON or what the template refuses, with its line; UNSUPPORTED without a template, or
 * with one that could not be read (the message says why). */
HADAL_API hadal_status hadal_tokenizer_chat(const hadal_tokenizer* tokenizer,
                                            const hadal_chat* chat, size_t* count, char* text,
                                            hadal_error* error);

/* ---- devices --------------------------------------------------------------------------------- */

/* A device as the loader shows it. */
typedef struct hadal_engine_device {
  size_t struct_size;
  char name[256];         /* "NVIDIA H100 PCIe" */
  char driver[256];       /* "llvmpipe, Mesa 26.1.6 (LLVM 21.1.8)" */
  char missing[256];      /* the first requirement that it lacks; empty: usable */
  VkBool32 is_cpu;        /* a driver that computes on the host */
  VkBool32 is_discrete;   /* a card with memory of its own */
  uint64_t memory_bytes;  /* of its largest device-local heap */
  uint64_t free_bytes;    /* of these, as far as the driver says */
  uint32_t subgroup_size; /* its default */
} hadal_engine_device;
/* How many devices the machine's Vulkan loader (libvulkan, opened at run time) shows; those of
 * hadal_engine_options::device. Makes and destroys an instance. Errors: NO_DEVICE without a loader
 * or device. Any thread. */
HADAL_API hadal_status hadal_engine_device_count(uint32_t* count, hadal_error* error);
/* The device of an index. Errors: INVALID_ARGUMENT, NO_DEVICE. Any thread. */
HADAL_API hadal_status hadal_engine_device_describe(uint32_t index, hadal_engine_device* device,
                                                    hadal_error* error);

/* ---- load ------------------------------------------------------------------------------------ */

/* done and total in bytes, at least every 16 MiB; not 0 cancels the load (HADAL_ERROR_CANCELLED),
 * which leaves nothing behind. */
typedef int (*hadal_progress_fn)(void* user, uint64_t done, uint64_t total);
/* Locks or unlocks the host's queue. */
typedef void (*hadal_queue_fn)(void* user);

/* HADAL_ENGINE_ bits. */
typedef uint32_t hadal_engine_flags;
enum {
  HADAL_ENGINE_SPECULATE = 1,    /* guess next tokens, compute them beside a request's own; the same
                                    tokens, more of them a step */
  HADAL_ENGINE_ALWAYS_DRAFT = 2, /* also where measured step times say that it does not pay */
  HADAL_ENGINE_ALWAYS_SWAP = 4,  /* also where computing again is quicker */
  HADAL_ENGINE_ABSORB_BF16 = 8,  /* a bfloat16 copy of kv_b_proj for decode */
  HADAL_ENGINE_NO_TOKENIZER = 16 /* ids in, ids out: no tokenizer is read */
};
/* Where guesses come from. */
typedef uint32_t hadal_draft_source;
enum {
  HADAL_DRAFT_MTP = 0,   /* the checkpoint's MTP layer */
  HADAL_DRAFT_NGRAM = 1, /* what followed the last tokens before */
  HADAL_DRAFT_BOTH = 2   /* that where there is such a place, else the MTP layer */
};

/* What to load, where, and how large. */
typedef struct hadal_engine_options {
  size_t struct_size;
  const char* model_dir; /* config.json, *.safetensors, tokenizer.json */

  /* The host's device: handles as for hadal_context_create (required features enabled, which
   * includes timelineSemaphore). Read during the call; the handles outlive the engine. NULL: a
   * device of the engine's own. */
  const hadal_context_info* context;
  VkQueue queue; /* with context: of its queue_family */
  /* Called around every use of the queue, on the calling thread; needed where the host submits to
   * it at the same time. Whoever holds the lock calls nothing of the engine. NULL: none. */
  hadal_queue_fn lock_queue;
  hadal_queue_fn unlock_queue; /* with lock_queue */
  void* queue_user;            /* of both */

  const char* device; /* without context: index, or a part of its name, any case; NULL: the best */
  const char* cache_dir; /* without context: keeps the pipeline cache between runs; NULL: none */
  hadal_log_fn log;      /* without context, which has its own; NULL: silent */
  void* log_user;        /* of log */

  uint32_t max_context;  /* positions of a request; 0: the model's, or the most that fits */
  uint32_t max_requests; /* that generate at once; 0: as max_rows, or 8 where that is 0, too */
  uint32_t max_rows;     /* of a decode step, guesses included; 0: what requests and guesses need */
  uint32_t max_chunk;    /* prompt tokens of a step; 0: 512 */
  /* Pages of the cache, of 64 positions. With cache_bytes 0, too: whole contexts of max_requests,
   * as many as fit, but in half of the device's memory unless one alone needs more. */
  uint32_t cache_pages;
  uint64_t cache_bytes;            /* instead of cache_pages */
  hadal_cache_format cache_format; /* of the cache's rows */
  uint64_t swap_bytes;       /* host memory for pages of preempted requests; 0: computed again */
  uint64_t read_ahead_bytes; /* what a thread of the load's own reads ahead; 0: no thread */
  hadal_engine_flags flags;  /* HADAL_ENGINE_ bits */
  hadal_draft_source draft_source; /* with SPECULATE */
  uint32_t draft_depth;            /* guesses of a request at most, 8; 0: 1 */
  double step_seconds;             /* what a step of prefill beside decode aims at; 0: 0.1 */
  uint32_t aging_steps;            /* of waiting that weigh as much as one priority; 0: 512 */
  hadal_progress_fn progress;      /* NULL: none */
  void* progress_user;             /* of progress */
} hadal_engine_options;

/* What hadal_engine_plan says. */
typedef struct hadal_engine_memory {
  size_t struct_size;
  uint64_t free_bytes;           /* of the device */
  uint64_t largest_buffer_bytes; /* workspace and cache are one buffer each */
  uint64_t weights_bytes;        /* of the checkpoint, as they lie on the device */
  uint64_t workspace_bytes;      /* of both pipelines */
  uint64_t page_bytes;           /* of the cache, in all layers */
  uint32_t page_tokens;          /* positions of a page: 64 */
  uint32_t context;              /* that the plan is for: what max_context comes to */
  uint32_t pages;                /* of the cache that these options give; 0: they do not fit */
  uint32_t most_pages;           /* of a cache beside weights and workspace */
  uint32_t longest_context;      /* of a single request; 0: nothing fits */
} hadal_engine_memory;
/* What hadal_engine_load would need and what fits, before anything is allocated: reads config.json
 * and the headers of the weights. Makes and destroys a device where options.context is NULL.
 * Errors: those of hadal_engine_load but OUT_OF_DEVICE_MEMORY, for which it says pages 0. */
HADAL_API hadal_status hadal_engine_plan(const hadal_engine_options* options,
                                         hadal_engine_memory* memory, hadal_error* error);

/* A checkpoint on a device, and its requests. */
typedef struct hadal_engine hadal_engine;

/* Loads and waits. Errors: INVALID_ARGUMENT naming the member; IO and MALFORMED naming file and
 * rule; UNSUPPORTED for a model or device that hadal does not run; OUT_OF_DEVICE_MEMORY with the
 * numbers and what would fit, before anything is allocated; NO_DEVICE; CANCELLED. Any thread. */
HADAL_API hadal_status hadal_engine_load(const hadal_engine_options* options, hadal_engine** engine,
                                         hadal_error* error);
/* Drops the requests. Before the host's device goes; entries, exported bytes and the tokenizer of
 * the engine go with it. Engines go in any order. Not from a callback. NULL is a no-op. */
HADAL_API void hadal_engine_destroy(hadal_engine* engine);

/* What hadal_engine_describe says. Texts and ids are the engine's, constant. */
typedef struct hadal_engine_facts {
  size_t struct_size;
  const char* device_name;  /* "NVIDIA H100 PCIe" */
  const char* driver;       /* its name and version */
  uint64_t device_bytes;    /* all that the engine has allocated there */
  uint64_t weights_bytes;   /* of these, weights */
  uint64_t cache_bytes;     /* of these, the cache */
  uint32_t cache_pages;     /* of the cache */
  uint32_t page_tokens;     /* positions of a page: 64 */
  uint32_t max_context;     /* positions of a request */
  uint32_t max_requests;    /* that generate at once */
  uint32_t max_rows;        /* of a decode step */
  uint32_t max_chunk;       /* prompt tokens of a step */
  const char* architecture; /* of config.json, as what follows */
  uint32_t layers;          /* MTP layers not included */
  uint32_t mtp_layers;      /* of the checkpoint, loaded or not */
  uint32_t vocab_size;      /* ids are below it */
  uint32_t bos_id;          /* HADAL_NO_TOKEN: none */
  const uint32_t* eos_ids;  /* where a request ends unless it says IGNORE_EOS: config.json's, and
                               generation_config.json's */
  size_t eos_count;         /* of eos_ids */
} hadal_engine_facts;
/* What was loaded, and where. Any thread. */
HADAL_API hadal_status hadal_engine_describe(const hadal_engine* engine, hadal_engine_facts* facts,
                                             hadal_error* error);

/* The engine's own, which goes with it; NULL with NO_TOKENIZER or without DIR/tokenizer.json. Any
 * thread. */
HADAL_API const hadal_tokenizer* hadal_engine_tokenizer(const hadal_engine* engine);

/* Not 0 ends what it is asked about. */
typedef int (*hadal_cancelled_fn)(void* user);

/* How to warm up; all zero: on the caller's thread, for prompts of any length. */
typedef struct hadal_engine_warm_up_options {
  size_t struct_size;
  uint32_t threads;             /* at once, the caller's among them; 0: 1 */
  uint32_t prefill_tokens;      /* of a step, if it is known to be about so many; 0: any number */
  hadal_cancelled_fn cancelled; /* asked before each piece, from every thread; NULL: never */
  void* user;                   /* of cancelled */
} hadal_engine_warm_up_options;
/* Makes the pipelines that requests may need, so that the first tokens do not wait for compilers.
 * `options` may be NULL. Errors: CANCELLED, and what was made stays; those of the device. */
HADAL_API hadal_status hadal_engine_warm_up(hadal_engine* engine,
                                            const hadal_engine_warm_up_options* options,
                                            hadal_error* error);

/* ---- requests -------------------------------------------------------------------------------- */

/* Of a request, never 0; the engine does not use it again. */
typedef uint64_t hadal_request_id;

/* A bias of a token. Never changes. */
typedef struct hadal_logit_bias {
  uint32_t id; /* of the token */
  float value; /* added to the logit, -100 to 100 */
} hadal_logit_bias;

/* Which tokens may follow (grammars): sets bit id % 32 of allowed[id / 32] for each of them, of
 * `words` that are 0 before, and returns 1; or returns 0: all. Anything else, an exception, or no
 * token at all ends the request with HADAL_FINISH_FAILED. A pure function of the generated tokens:
 * it is asked again for earlier ones of a preempted request, and for guessed ones. */
typedef int (*hadal_mask_fn)(void* user, const uint32_t* generated, size_t count, uint32_t* allowed,
                             size_t words);

/* HADAL_REQUEST_ bits. */
typedef uint32_t hadal_request_flags;
enum {
  HADAL_REQUEST_LOGPROBS = 1,     /* report log-probabilities, of the token and of top_logprobs */
  HADAL_REQUEST_IGNORE_EOS = 2,   /* go on behind eos_ids of hadal_engine_facts */
  HADAL_REQUEST_PREFILL_ONLY = 4, /* the prompt and the first token; then HADAL_FINISH_EXPORTED */
  HADAL_REQUEST_PLAIN_TEXT = 8    /* `text` as with HADAL_TEXT_PLAIN */
};

/* A prompt, and how to go on from it. */
typedef struct hadal_engine_request {
  size_t struct_size;
  /* The prompt as ids, or as text: exactly one. Copied, as is all that the request points to but
   * what `mask_user` points to. */
  const uint32_t* prompt;
  size_t prompt_tokens;               /* of prompt */
  const char* text;                   /* instead of prompt */
  size_t text_bytes;                  /* of text; 0: up to its zero */
  uint32_t max_new_tokens;            /* 0: until the context ends */
  float temperature;                  /* 0: greedy */
  uint32_t top_k;                     /* 0: off */
  float top_p;                        /* 0 and 1: off */
  float min_p;                        /* 0: off */
  uint64_t seed;                      /* of the draws: the same one, the same tokens */
  float repetition_penalty;           /* of prompt and generated tokens; 0 and 1: off */
  float presence_penalty;             /* of generated tokens, once; -2 to 2 */
  float frequency_penalty;            /* of generated tokens, for each time; -2 to 2 */
  const hadal_logit_bias* logit_bias; /* different ids */
  size_t logit_bias_count;            /* of logit_bias */
  uint32_t top_logprobs;     /* with LOGPROBS: of so many of the most probable tokens, at most 20 */
  hadal_request_flags flags; /* HADAL_REQUEST_ bits */
  hadal_mask_fn mask;        /* called by step; NULL: none */
  void* mask_user;           /* of mask */
  const uint32_t* stop_ids;  /* the request ends behind one of these (it is reported, too) */
  size_t stop_ids_count;     /* of stop_ids */
  const char* const* stop;   /* or in front of one of these strings; needs a tokenizer */
  size_t stop_count;         /* of stop */
  double timeout_seconds;    /* from add on; past it: HADAL_FINISH_DEADLINE; 0: none */
  int32_t priority;          /* higher goes first */
} hadal_engine_request;

/* Errors: INVALID_ARGUMENT naming the member; OUT_OF_DEVICE_MEMORY when the cache could never hold
 * the request; UNSUPPORTED for text without a tokenizer; DEVICE_LOST as for step. */
HADAL_API hadal_status hadal_engine_add(hadal_engine* engine, const hadal_engine_request* request,
                                        hadal_request_id* id, hadal_error* error);
/* What hadal_engine_add would say, but DEVICE_LOST. Any thread, also beside a step. */
HADAL_API hadal_status hadal_engine_check(const hadal_engine* engine,
                                          const hadal_engine_request* request, hadal_error* error);
/* Ends a request, in whatever state; it gives no more entries. Unknown and ended ones are ignored.
 */
HADAL_API hadal_status hadal_engine_cancel(hadal_engine* engine, hadal_request_id id,
                                           hadal_error* error);

/* ---- steps ----------------------------------------------------------------------------------- */

/* Why a request ended. */
typedef uint32_t hadal_finish;
enum {
  HADAL_FINISH_NONE = 0,     /* goes on */
  HADAL_FINISH_LENGTH = 1,   /* max_new_tokens, or the context's end */
  HADAL_FINISH_STOP = 2,     /* an end-of-text token, a stop id or a stop string */
  HADAL_FINISH_DEADLINE = 3, /* its time was over */
  HADAL_FINISH_FAILED = 4,   /* status and message say why */
  HADAL_FINISH_EXPORTED = 5  /* a PREFILL_ONLY request: hadal_engine_export gives its state, once */
};
/* A token and its log-probability. Never changes. */
typedef struct hadal_token_logprob {
  uint32_t id;   /* of the token */
  float logprob; /* of the model's own logits; -infinity where the probability is 0 */
} hadal_token_logprob;

/* A token of a request, or its end, or both. */
typedef struct hadal_engine_token {
  size_t struct_size;       /* of the library */
  hadal_request_id request; /* whose it is */
  VkBool32 has_token;       /* an end that no token brought has none */
  uint32_t id;              /* with has_token */
  /* What may be shown now: whole characters, nothing that could still be part of a stop string;
   * often empty. A zero follows it. */
  const char* text;
  size_t text_bytes;              /* of text */
  hadal_finish finish;            /* not NONE: the request's last entry */
  hadal_status status;            /* not HADAL_OK with FAILED only */
  const char* message;            /* of status; "" without */
  VkBool32 has_logprob;           /* the request has LOGPROBS */
  float logprob;                  /* of the token */
  const hadal_token_logprob* top; /* of the most probable tokens, the first one first */
  size_t top_count;               /* of top */
} hadal_engine_token;

/* Runs one step and waits for it. *tokens becomes an array of pointers to *count entries, in the
 * order of its rows; they are the engine's until its next step or its end. Nothing left to do gives
 * none. A failing submission ends the requests in it, each with an entry of FAILED, and the engine
 * goes on. Errors: DEVICE_LOST from the step after the one in which the device was lost, which
 * ended every request: engine and device must be made again. */
HADAL_API hadal_status hadal_engine_step(hadal_engine* engine,
                                         const hadal_engine_token* const** tokens, size_t* count,
                                         hadal_error* error);
/* Whether no request is left; so for NULL. */
HADAL_API VkBool32 hadal_engine_idle(const hadal_engine* engine);

/* ---- requests as bytes ----------------------------------------------------------------------- */

/* The request with its rows of the cache, for an engine of the same model and cache format here or
 * elsewhere. It goes on here until it is cancelled; one that ended EXPORTED is forgotten. The bytes
 * are the engine's until its next export or its end. Errors: INVALID_ARGUMENT for an unknown or
 * ended request; those of the device. */
HADAL_API hadal_status hadal_engine_export(hadal_engine* engine, hadal_request_id id,
                                           const void** bytes, size_t* count, hadal_error* error);
/* Goes on with a request: its next tokens are those that it would have got there. `mask` is the
 * request's, needed exactly where it had one; no state can hold it. Errors: MALFORMED and
 * INVALID_ARGUMENT for bytes that are not of such an engine; those of add. */
HADAL_API hadal_status hadal_engine_import(hadal_engine* engine, const void* bytes, size_t count,
                                           hadal_mask_fn mask, void* mask_user,
                                           hadal_request_id* id, hadal_error* error);

/* ---- statistics ------------------------------------------------------------------------------ */

/* Counters since the load. */
typedef struct hadal_engine_stats {
  size_t struct_size;
  uint32_t waiting;           /* requests that are not admitted yet */
  uint32_t running;           /* requests that are */
  uint32_t pages;             /* of the cache: free, cached and used ones */
  uint32_t pages_free;        /* hold nothing */
  uint32_t pages_cached;      /* hold rows of a known prefix, for whoever begins with it */
  uint32_t pages_used;        /* hold rows of requests */
  uint64_t wanted_pages;      /* whole pages of the prompts */
  uint64_t matched_pages;     /* of these, taken over from others */
  uint64_t evicted_pages;     /* cached ones that were given to somebody else */
  uint64_t reused_tokens;     /* positions that were taken over */
  uint64_t preemptions;       /* requests that lost their pages for a time */
  uint64_t swapped_out_pages; /* to host memory */
  uint64_t swapped_in_pages;  /* and back */
  uint64_t steps;             /* that computed something */
  uint64_t prefilled_tokens;  /* of prompts, computed */
  uint64_t decoded_tokens;    /* given by decode steps */
  uint64_t decoded_requests;  /* summed over the decode steps: those that it gave a token to */
  uint64_t verified_drafts;   /* guesses that were computed */
  uint64_t accepted_drafts;   /* of these, right ones */
  uint64_t failed_requests;   /* that ended FAILED */
  double prefill_seconds;     /* host time around the prefill pipeline */
  double decode_seconds;      /* and around the decode pipeline */
  double step_seconds;        /* of all steps */
  double wait_seconds;        /* of which waiting for the device */
} hadal_engine_stats;
/* Between steps. */
HADAL_API hadal_status hadal_engine_statistics(const hadal_engine* engine,
                                               hadal_engine_stats* stats, hadal_error* error);

#ifdef __cplusplus
}
#endif

#endif /* HADAL_HADAL_ENGINE_H */
