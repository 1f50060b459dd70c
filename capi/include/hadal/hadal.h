/* hadal's C ABI: DeepSeek-V3's kernels as a guest on a Vulkan device that the host owns. C99.
 *
 *   query   what the device must and may enable, before it is made   hadal_device_*
 *   lend    a context over the host's handles                        hadal_context_create
 *   plan    one kernel for fixed sizes: pipelines are compiled here  hadal_<kernel>_plan
 *   record  it into the host's command buffer, as often as wanted    hadal_<kernel>_record
 *
 * One header, so that a host reads one file; a section per kernel, each of the same four parts
 * (formula and operands, desc, args, two functions). The engine has a header and a library of its
 * own, hadal/hadal_engine.h.
 *
 * What hadal never does: submit, wait, allocate device memory, start a thread, print, abort, read
 * the environment, throw, or keep process-wide state. It does not link libvulkan. It allocates a
 * little host memory, also while recording, and says HADAL_ERROR_OUT_OF_HOST_MEMORY when that
 * fails.
 *
 * Structures. Each that is passed by pointer begins with struct_size = sizeof itself; all bytes
 * that are not set are zero, and zero is the default of every member. A library that knows more
 * members than the caller takes those as zero; one that knows fewer refuses what it does not know
 * unless it is zero. hadal_range and the hadal_device_* records of device memory have no size and
 * never change.
 *
 * Errors. Every function that can fail returns a status and takes a hadal_error, which may be NULL.
 * It is written only by a call that fails, on the caller's thread, with a message that names the
 * kernel, the argument, the rule and the value: "fp8_gemm: a_stride must be at least k, got 64 <
 * 128". A failed call leaves its outputs as they were; a failed record may have recorded a part of
 * its commands only for HADAL_ERROR_OUT_OF_HOST_MEMORY.
 *
 * Threads. A context and its plans are immutable: any number of threads may use them at once, to
 * plan and to record. A command buffer (and its pool) is the host's to protect, as Vulkan asks.
 * Destroying needs that no other thread uses the object. Contexts share nothing with each other.
 *
 * Versions. Symbols carry the version node HADAL_0.1. Until 1.0 a new minor version may break the
 * ABI; then SOVERSION, which is MAJOR.MINOR, changes.
 */
#ifndef HADAL_HADAL_H
#define HADAL_HADAL_H

#include <stddef.h>
#include <stdint.h>
#include <vulkan/vulkan_core.h>

/* A function that libhadal exports. */
#if defined(__GNUC__)
#define HADAL_API __attribute__((visibility("default")))
#else
#define HADAL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- versions and errors --------------------------------------------------------------------- */

#define HADAL_C_VERSION_MAJOR 0 /* of this header */
#define HADAL_C_VERSION_MINOR 1 /* of this header */
#define HADAL_C_VERSION_PATCH 0 /* of this header */

/* Of the library that is loaded: MAJOR << 22 | MINOR << 12 | PATCH, as VK_MAKE_API_VERSION. */
HADAL_API uint32_t hadal_version(void);

/* HADAL_OK or why not. */
typedef int32_t hadal_status;
enum {
  HADAL_OK = 0,
  HADAL_ERROR_INVALID_ARGUMENT = 1, /* an argument breaks a rule; the message names both */
  HADAL_ERROR_UNSUPPORTED = 2,      /* a right request that this device or build cannot serve */
  HADAL_ERROR_OUT_OF_HOST_MEMORY = 3,
  HADAL_ERROR_OUT_OF_DEVICE_MEMORY = 4, /* said by the driver, of its own objects */
  HADAL_ERROR_NO_DEVICE = 5,
  HADAL_ERROR_DEVICE_LOST = 6,
  HADAL_ERROR_HAZARD = 7,
  HADAL_ERROR_IO = 8,
  HADAL_ERROR_MALFORMED = 9,
  HADAL_ERROR_CANCELLED = 10,
  HADAL_ERROR_INTERNAL = 11 /* a driver error without a better name */
};

/* "InvalidArgument" and so on; "Unknown" for anything else. Never NULL. Any thread. */
HADAL_API const char* hadal_status_name(hadal_status status);

/* What a call that failed says of it. */
typedef struct hadal_error {
  size_t struct_size;
  hadal_status status; /* what the call returned */
  char message[500];   /* ends with a zero; cut where it is longer */
} hadal_error;
/* Its initialiser. */
#define HADAL_ERROR_INIT             \
  {                                  \
    sizeof(hadal_error), HADAL_OK, { \
      0                              \
    }                                \
  }

/* ---- before the device is made --------------------------------------------------------------- */

/* Which device is asked about. */
typedef struct hadal_device_query {
  size_t struct_size;
  PFN_vkGetInstanceProcAddr get_instance_proc_addr; /* the loader's, or a layer's of the host */
  VkInstance instance;                              /* the host's */
  VkPhysicalDevice physical_device;                 /* of the instance */
  uint32_t api_version; /* VkApplicationInfo::apiVersion, at least 1.2; 0: Vulkan 1.2 */
} hadal_device_query;

/* A feature bit that hadal looks at. */
typedef struct hadal_feature {
  size_t struct_size;
  const char* name; /* member, e.g. "bufferDeviceAddress" (texts are the library's, constant) */
  const char* structure; /* of which structure, e.g. "VkPhysicalDeviceVulkan12Features" */
  const char* extension; /* to be enabled with it; NULL: core in the host's version */
  const char* purpose;   /* what hadal does with it */
  VkBool32 required;     /* else an optional path needs it */
  VkBool32 offered;      /* the device has it, in a form that hadal uses */
} hadal_feature;

/* Number of features that hadal looks at; indices of hadal_device_feature. Any thread. */
HADAL_API uint32_t hadal_feature_count(void);

/* The feature of an index, required ones first. Any thread. */
HADAL_API hadal_status hadal_device_feature(const hadal_device_query* query, uint32_t index,
                                            hadal_feature* feature, hadal_error* error);

/* The extensions of the optional features that the device offers; none is required. With names NULL
 * sets *count, else writes at most *count names (the library's, constant) and sets *count to the
 * number written; too small a *count is HADAL_ERROR_INVALID_ARGUMENT. Any thread. */
HADAL_API hadal_status hadal_device_extensions(const hadal_device_query* query, uint32_t* count,
                                               const char** names, hadal_error* error);

/* Sets, in the structures of a pNext chain that the host will give to vkCreateDevice
 * (VkPhysicalDeviceFeatures2 first, or any other), every feature bit that is offered; bits already
 * set stay. An optional feature whose structure is not in the chain stays off. Errors: UNSUPPORTED
 * for a device that lacks a required feature, INVALID_ARGUMENT for a required feature without a
 * structure; the message names it. Any thread; the chain is the caller's. */
HADAL_API hadal_status hadal_device_enable(const hadal_device_query* query, void* chain,
                                           hadal_error* error);

/* ---- context --------------------------------------------------------------------------------- */

typedef uint32_t hadal_log_level;
enum { HADAL_LOG_INFO = 0, HADAL_LOG_WARNING = 1, HADAL_LOG_ERROR = 2 };
/* Called on the thread of the call that has something to say, possibly on several at once. */
typedef void (*hadal_log_fn)(void* user, hadal_log_level level, const char* text);

/* Bytes of the tables that the fastest paths of CPU drivers read (GPUs read none). */
#define HADAL_CONSTANTS_BYTES 2048
/* Writes them to host memory of HADAL_CONSTANTS_BYTES. Any thread. */
HADAL_API void hadal_constants_write(void* bytes);

/* A lent device, and the pipelines of its plans. */
typedef struct hadal_context hadal_context;

/* The host's handles, and what hadal may use of its device. */
typedef struct hadal_context_info {
  size_t struct_size;
  PFN_vkGetInstanceProcAddr get_instance_proc_addr; /* as in hadal_device_query */
  VkInstance instance;                              /* as in hadal_device_query */
  VkPhysicalDevice physical_device;                 /* as in hadal_device_query */
  VkDevice device;                                  /* made of physical_device */
  uint32_t queue_family;                            /* of the command buffers; must have compute */
  /* What vkCreateDevice was given; read during the call only. NULL: the required features are taken
   * to be on and no optional one is used. */
  const VkDeviceCreateInfo* create_info;
  VkPipelineCache pipeline_cache; /* 0: a private one */
  /* Copied, and passed to every Vulkan call that creates or destroys; pUserData stays alive. NULL:
   * the driver's own. hadal's own host memory comes from operator new. */
  const VkAllocationCallbacks* allocation_callbacks;
  hadal_log_fn log; /* NULL: silent */
  void* log_user;   /* log's first argument */
  /* Device memory, 16-byte aligned, that holds what hadal_constants_write wrote before the first
   * submission, until the context is destroyed. 0: CPU drivers take slower paths, of the same bits.
   */
  VkDeviceAddress constants;
} hadal_context_info;

/* Lends the host's device. Every handle must outlive the context. Makes no queue, command pool or
 * memory object. Any thread. */
HADAL_API hadal_status hadal_context_create(const hadal_context_info* info, hadal_context** context,
                                            hadal_error* error);
/* Refused (INVALID_ARGUMENT) while plans of it are alive. Command buffers that were recorded with
 * its plans have completed, and are not submitted again. NULL is a no-op. */
HADAL_API hadal_status hadal_context_destroy(hadal_context* context, hadal_error* error);

/* Records a barrier: what shaders and copies did before is visible to shaders, copies and indirect
 * dispatches after. No _record function adds one before its first read or after its last write. */
HADAL_API hadal_status hadal_barrier_record(const hadal_context* context, VkCommandBuffer commands,
                                            hadal_error* error);

/* ---- plans, for every kernel ----------------------------------------------------------------- */

/* One kernel, chosen and compiled for the sizes of its desc. Row counts of the desc are the most
 * that a call may have; the call's args say how many it has, 0 included (then nothing is recorded).
 * A row's bits depend on neither. Compiling takes milliseconds to seconds: plan ahead, in parallel
 * if wanted. Plans of one pipeline share it; it lives as long as the context.
 *
 * A record changes the command buffer's compute pipeline and push constants, nothing else. The
 * buffer is in the recording state, outside a render pass, of the context's queue family; it may be
 * primary or secondary. */
typedef struct hadal_plan hadal_plan;

/* NULL is a no-op. Command buffers recorded with it need not have completed: the pipelines are the
 * context's. */
HADAL_API void hadal_plan_destroy(hadal_plan* plan);
/* Bytes of device memory that args.scratch must hold, for the largest sizes of the desc; 0 for most
 * kernels, which have no such member. Free again when the recorded call has completed. Any thread.
 */
HADAL_API uint64_t hadal_plan_scratch_bytes(const hadal_plan* plan);
/* What was chosen and why, one line; the plan's, constant. Any thread. */
HADAL_API const char* hadal_plan_description(const hadal_plan* plan);

/* An operand in device memory: an address, or (address 0) a buffer made with
 * VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT and an offset into it. With bytes not 0 the call is
 * refused if the kernel could touch more than so many from there. All zero: absent. */
typedef struct hadal_range {
  VkDeviceAddress address;
  VkBuffer buffer;
  VkDeviceSize offset;
  VkDeviceSize bytes;
} hadal_range;

/* In what follows, operands are row-major with the given shape in brackets; a *_stride is the
 * distance of rows, in elements where nothing else is said, and 0 means tight (rows of e4m3 are
 * padded to 16 bytes). Every operand of a call with rows must be present unless it says optional.
 * The element type of floats is IEEE float, of codes e4m3 (OCP FP8, no infinity), of indices
 * uint32. Error bounds and the exact order of sums: the C++ headers of the same names. */

typedef uint32_t hadal_element_type;
enum { HADAL_ELEMENT_F32 = 0, HADAL_ELEMENT_BF16 = 1 };

typedef uint32_t hadal_scale_format; /* how a quantisation scale rounds */
enum { HADAL_SCALE_FP32 = 0, HADAL_SCALE_UE8M0 = 1 /* powers of two */ };

typedef uint32_t hadal_scale_type; /* how a scale is stored */
enum { HADAL_SCALE_TYPE_F32 = 0, HADAL_SCALE_TYPE_E8M0 = 1 /* a byte e: 2^(e-127) */ };

typedef uint32_t hadal_gemm_flags;
enum {
  HADAL_GEMM_ACCUMULATE = 1, /* d += instead of d = */
  HADAL_GEMM_VARIANT_BITS =
      2,                     /* small plans may take another unit; a row's bits then depend on m */
  HADAL_GEMM_COARSE_SUMS = 4 /* float8 matrix units, which may keep fewer bits, may be taken */
};

/* ---- fp8_quantize: groups of 128 channels to e4m3 with a scale each -------------------------- */
/*   scale = max(max|x|, 1e-4) / 448 (UE8M0: the next power of two), q = e4m3(x / scale)
 *   x      float [rows, k]
 *   q      e4m3 [rows, k], stride in bytes, a multiple of 16; 16-byte aligned
 *   scale  float, or e8m0 (with UE8M0 only), [rows, ceil(k/128)] */
typedef struct hadal_fp8_quantize_desc {
  size_t struct_size;
  uint32_t rows, k;
  uint32_t x_stride, q_stride, scale_stride;
  hadal_scale_format scale_format;
  hadal_scale_type scale_type;
} hadal_fp8_quantize_desc;
typedef struct hadal_fp8_quantize_args {
  size_t struct_size;
  uint32_t rows;
  hadal_range x, q, scale;
} hadal_fp8_quantize_args;
HADAL_API hadal_status hadal_fp8_quantize_plan(hadal_context* context,
                                               const hadal_fp8_quantize_desc* desc,
                                               hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_fp8_quantize_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                 const hadal_fp8_quantize_args* args,
                                                 hadal_error* error);

/* ---- fp8_gemm: d = a b^T, block-scaled ------------------------------------------------------- */
/*   d[m,n] = sum over blocks of 128 k of (sum a b) * a_scale * b_scale
 *   a        e4m3 [m, k], stride in bytes; 16-byte aligned rows, as b
 *   a_scale  [m, ceil(k/128)]
 *   b        e4m3 [n, k], stride in bytes (a checkpoint's weight, as it is)
 *   b_scale  [ceil(n/128), ceil(k/128)], or [n, ceil(k/128)] with b_scale_rows = 1
 *   d        float or bfloat16 [m, n]
 * Neither a nor b holds the NaN codes 0x7f and 0xff. */
typedef struct hadal_fp8_gemm_desc {
  size_t struct_size;
  uint32_t m, n, k;
  uint32_t a_stride, a_scale_stride, b_stride, b_scale_stride, d_stride;
  hadal_element_type d_type;
  hadal_scale_type a_scale_type, b_scale_type;
  uint32_t b_scale_rows; /* rows of b that share a row of scales: 0 or 128, or 1 */
  hadal_gemm_flags flags;
} hadal_fp8_gemm_desc;
typedef struct hadal_fp8_gemm_args {
  size_t struct_size;
  uint32_t m;
  hadal_range a, a_scale, b, b_scale, d;
} hadal_fp8_gemm_args;
HADAL_API hadal_status hadal_fp8_gemm_plan(hadal_context* context, const hadal_fp8_gemm_desc* desc,
                                           hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_fp8_gemm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                             const hadal_fp8_gemm_args* args, hadal_error* error);

/* ---- grouped GEMMs: the linear layer of all experts at once ---------------------------------- */
/* Rows lie sorted by expert, and a list of tiles in device memory says whose they are: made on the
 * device by moe_permute or moe_tiles, with what hadal_grouped_gemm_tiling says of each plan. GEMMs
 * that share a list take the smallest tile_m among them. */

typedef struct hadal_device_moe_tile { /* device memory */
  uint32_t expert, row_begin, row_end; /* sorted rows row_begin .. row_end are the expert's */
  uint32_t reserved;                   /* 0 */
} hadal_device_moe_tile;
typedef struct hadal_device_expert { /* device memory: one of expert_table */
  VkDeviceAddress b;                 /* multiple of 16 */
  VkDeviceAddress b_scale;           /* ignored by bf16_grouped_gemm */
} hadal_device_expert;

/* What the list of tiles of a plan must be like. */
typedef struct hadal_grouped_tiling {
  size_t struct_size;
  uint32_t tile_m;    /* rows of a tile at most: desc.tile_m of moe_permute and moe_tiles */
  uint32_t groups_x;  /* x of the indirect command: desc.groups_x there */
  uint32_t max_tiles; /* tiles that the desc's rows can make with this tile_m */
} hadal_grouped_tiling;
/* Of a plan of fp8_grouped_gemm, bf16_grouped_gemm or swiglu_tiles (tile_m and max_tiles 0: any).
 * Any thread. */
HADAL_API hadal_status hadal_grouped_gemm_tiling(const hadal_plan* plan,
                                                 hadal_grouped_tiling* tiling, hadal_error* error);
/* Most tiles of so many sorted rows, however they are spread; 0 for tile_m 0. Any thread. */
HADAL_API uint32_t hadal_grouped_gemm_max_tiles(uint32_t rows, uint32_t experts, uint32_t tile_m);

/*   d[r,n] = as fp8_gemm, of row s(r) of a and the expert of row r
 *   a             e4m3 [tokens, k];  a_scale  [tokens, ceil(k/128)]
 *   a_rows        uint32 [rows], optional: s(r) = a_rows[r]; without it s(r) = r, tokens = rows
 *   expert_table  hadal_device_expert [experts], 8-byte aligned; weights as b of fp8_gemm
 *   tiles         hadal_device_moe_tile [max_tiles]
 *   indirect      VkDispatchIndirectCommand, by buffer and offset (Vulkan takes no address here);
 *                 the buffer needs VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT, too
 *   d             float or bfloat16 [rows, n]; rows in no tile keep their content
 * Weights are read through the table: they are not checked. */
typedef struct hadal_fp8_grouped_gemm_desc {
  size_t struct_size;
  uint32_t rows, tokens, experts, n, k; /* tokens 0: as rows */
  uint32_t expected_rows;               /* in tiles, for the choice of tile_m only; 0: all */
  uint32_t a_stride, a_scale_stride, b_stride, b_scale_stride, d_stride;
  hadal_element_type d_type;
  hadal_scale_type a_scale_type, b_scale_type;
  uint32_t b_scale_rows;  /* as fp8_gemm */
  hadal_gemm_flags flags; /* not ACCUMULATE */
} hadal_fp8_grouped_gemm_desc;
typedef struct hadal_fp8_grouped_gemm_args {
  size_t struct_size;
  uint32_t rows, tokens; /* tokens 0: as rows */
  hadal_range a, a_scale, a_rows, expert_table, tiles, indirect, d;
} hadal_fp8_grouped_gemm_args;
HADAL_API hadal_status hadal_fp8_grouped_gemm_plan(hadal_context* context,
                                                   const hadal_fp8_grouped_gemm_desc* desc,
                                                   hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_fp8_grouped_gemm_record(const hadal_plan* plan,
                                                     VkCommandBuffer commands,
                                                     const hadal_fp8_grouped_gemm_args* args,
                                                     hadal_error* error);

/* The same with bfloat16 weights [n, k] and a in floats [tokens, k]. */
typedef struct hadal_bf16_grouped_gemm_desc {
  size_t struct_size;
  uint32_t rows, tokens, experts, n, k;
  uint32_t expected_rows;
  uint32_t a_stride, b_stride, d_stride; /* a and b: 16-byte aligned rows */
  hadal_element_type d_type;
} hadal_bf16_grouped_gemm_desc;
typedef struct hadal_bf16_grouped_gemm_args {
  size_t struct_size;
  uint32_t rows, tokens;
  hadal_range a, a_rows, expert_table, tiles, indirect, d;
} hadal_bf16_grouped_gemm_args;
HADAL_API hadal_status hadal_bf16_grouped_gemm_plan(hadal_context* context,
                                                    const hadal_bf16_grouped_gemm_desc* desc,
                                                    hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_bf16_grouped_gemm_record(const hadal_plan* plan,
                                                      VkCommandBuffer commands,
                                                      const hadal_bf16_grouped_gemm_args* args,
                                                      hadal_error* error);

/* ---- bf16_gemm: d = a b^T with bfloat16 b, batched ------------------------------------------- */
/*   a  float or bfloat16 [batch, m, k];  b  bfloat16 [batch, n, k];  d  float or bfloat16
 *   [batch, m, n]. Rows of a and b are 16-byte aligned. Batch strides are distances in elements
 *   as they stand: 0 shares a or b. */
typedef struct hadal_bf16_gemm_desc {
  size_t struct_size;
  uint32_t m, n, k;
  uint32_t a_stride, b_stride, d_stride;
  uint32_t batch; /* 0: 1 */
  uint32_t a_batch_stride, b_batch_stride, d_batch_stride;
  hadal_element_type a_type, d_type;
  hadal_gemm_flags flags; /* ACCUMULATE only */
} hadal_bf16_gemm_desc;
typedef struct hadal_bf16_gemm_args {
  size_t struct_size;
  uint32_t m;
  hadal_range a, b, d;
} hadal_bf16_gemm_args;
HADAL_API hadal_status hadal_bf16_gemm_plan(hadal_context* context,
                                            const hadal_bf16_gemm_desc* desc, hadal_plan** plan,
                                            hadal_error* error);
HADAL_API hadal_status hadal_bf16_gemm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                              const hadal_bf16_gemm_args* args, hadal_error* error);

/* ---- rms_norm: with a residual before and quantisation behind -------------------------------- */
/*   h = x (+ residual);  y = h / sqrt(mean(h^2) + eps) * weight
 *   x, residual, h, y  float [rows, n];  weight  float [n]
 *   q, scale           as fp8_quantize of y */
typedef uint32_t hadal_rms_norm_flags;
enum {
  HADAL_RMS_NORM_RESIDUAL = 1, /* reads residual */
  HADAL_RMS_NORM_H = 2,        /* writes h, which may be x or residual itself */
  HADAL_RMS_NORM_Y = 4,        /* writes y */
  HADAL_RMS_NORM_QUANTIZE = 8  /* writes q and scale */
};
typedef struct hadal_rms_norm_desc {
  size_t struct_size;
  uint32_t rows, n;
  uint32_t x_stride, residual_stride, h_stride, y_stride, q_stride, scale_stride;
  hadal_rms_norm_flags flags;
  hadal_scale_format scale_format;
  float eps; /* 1e-12 to 1; 0: 1e-6 */
} hadal_rms_norm_desc;
typedef struct hadal_rms_norm_args {
  size_t struct_size;
  uint32_t rows;
  hadal_range x, residual, weight, h, y, q, scale;
} hadal_rms_norm_args;
HADAL_API hadal_status hadal_rms_norm_plan(hadal_context* context, const hadal_rms_norm_desc* desc,
                                           hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_rms_norm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                             const hadal_rms_norm_args* args, hadal_error* error);

/* ---- swiglu: silu(gate) * up, with quantisation behind --------------------------------------- */
/*   gate, up, y  float [rows, n] (up may be the other half of gate's rows; y gate or up itself)
 *   q, scale     as fp8_quantize of y */
typedef uint32_t hadal_swiglu_flags;
enum { HADAL_SWIGLU_Y = 1, HADAL_SWIGLU_QUANTIZE = 2 };
typedef struct hadal_swiglu_desc {
  size_t struct_size;
  uint32_t rows, n;
  uint32_t gate_stride, up_stride, y_stride, q_stride, scale_stride;
  hadal_swiglu_flags flags;
  hadal_scale_format scale_format;
} hadal_swiglu_desc;
typedef struct hadal_swiglu_args {
  size_t struct_size;
  uint32_t rows;
  hadal_range gate, up, y, q, scale;
} hadal_swiglu_args;
HADAL_API hadal_status hadal_swiglu_plan(hadal_context* context, const hadal_swiglu_desc* desc,
                                         hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_swiglu_record(const hadal_plan* plan, VkCommandBuffer commands,
                                           const hadal_swiglu_args* args, hadal_error* error);

/* The same for the rows of a tile list only: behind a grouped GEMM, with its tiles, by an indirect
 * dispatch of a command like its own. */
typedef struct hadal_swiglu_tiles_args {
  size_t struct_size;
  uint32_t rows;      /* that tiles may name */
  uint32_t max_tiles; /* of the list */
  hadal_range gate, up, y, q, scale, tiles, indirect;
} hadal_swiglu_tiles_args;
HADAL_API hadal_status hadal_swiglu_tiles_plan(hadal_context* context,
                                               const hadal_swiglu_desc* desc, hadal_plan** plan,
                                               hadal_error* error);
HADAL_API hadal_status hadal_swiglu_tiles_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                 const hadal_swiglu_tiles_args* args,
                                                 hadal_error* error);

/* ---- rope: rotary embedding, in place -------------------------------------------------------- */
/*   x          float [rows, heads, offset + dim ...]: channels offset .. offset + dim of each head
 *   positions  uint32 [rows]; one past the table makes its row NaN
 *   table      float [max_position, dim/2, 2] of hadal_rope_table
 * Pairs of channels are (2i, 2i+1), or (i, i + dim/2) with half_split. */
typedef struct hadal_rope_desc {
  size_t struct_size;
  uint32_t rows, heads, dim;
  uint32_t row_stride, head_stride; /* 0: heads of offset + dim channels */
  uint32_t offset;
  VkBool32 half_split;
  uint32_t max_position; /* rows of the table */
} hadal_rope_desc;
typedef struct hadal_rope_args {
  size_t struct_size;
  uint32_t rows;
  hadal_range x, positions, table;
} hadal_rope_args;
/* Writes amplitude * cos and sin of position * inverse_frequencies[i] to table, host memory of
 * float [positions, count, 2], computed in double. Any thread. */
HADAL_API hadal_status hadal_rope_table(const double* inverse_frequencies, uint32_t count,
                                        double amplitude, uint32_t first_position,
                                        uint32_t positions, float* table, hadal_error* error);
HADAL_API hadal_status hadal_rope_plan(hadal_context* context, const hadal_rope_desc* desc,
                                       hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_rope_record(const hadal_plan* plan, VkCommandBuffer commands,
                                         const hadal_rope_args* args, hadal_error* error);

/* ---- embedding: y[t] = table[ids[t]] --------------------------------------------------------- */
/*   ids  uint32 [tokens] (one past vocab gives NaN);  table  bfloat16 [vocab, hidden]
 *   y    float [tokens, hidden] */
typedef struct hadal_embedding_desc {
  size_t struct_size;
  uint32_t tokens, hidden, vocab;
  uint32_t table_stride, y_stride;
} hadal_embedding_desc;
typedef struct hadal_embedding_args {
  size_t struct_size;
  uint32_t tokens;
  hadal_range ids, table, y;
} hadal_embedding_args;
HADAL_API hadal_status hadal_embedding_plan(hadal_context* context,
                                            const hadal_embedding_desc* desc, hadal_plan** plan,
                                            hadal_error* error);
HADAL_API hadal_status hadal_embedding_record(const hadal_plan* plan, VkCommandBuffer commands,
                                              const hadal_embedding_args* args, hadal_error* error);

/* ---- moe_gate: the top_k experts of every token, and their weights --------------------------- */
/*   logits   float [tokens, experts];  bias  float [experts], NOAUX_TC only
 *   indices  uint32 [tokens, top_k];  weights  float [tokens, top_k] */
typedef uint32_t hadal_gate_scoring;
enum { HADAL_GATE_SIGMOID = 0, HADAL_GATE_SOFTMAX = 1 };
typedef uint32_t hadal_gate_method;
enum { HADAL_GATE_NOAUX_TC = 0, HADAL_GATE_GROUP_LIMITED_GREEDY = 1, HADAL_GATE_GREEDY = 2 };
typedef struct hadal_moe_gate_desc {
  size_t struct_size;
  uint32_t tokens, experts, top_k;
  uint32_t n_group, topk_group; /* 0: 1 */
  hadal_gate_scoring scoring;
  hadal_gate_method method;
  VkBool32 keep_sum; /* weights are not divided by their sum */
  float scaling;     /* 0: 1 */
  uint32_t logits_stride;
} hadal_moe_gate_desc;
typedef struct hadal_moe_gate_args {
  size_t struct_size;
  uint32_t tokens;
  hadal_range logits, bias, indices, weights;
} hadal_moe_gate_args;
HADAL_API hadal_status hadal_moe_gate_plan(hadal_context* context, const hadal_moe_gate_desc* desc,
                                           hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_moe_gate_record(const hadal_plan* plan, VkCommandBuffer commands,
                                             const hadal_moe_gate_args* args, hadal_error* error);

/* ---- moe_permute: sorts a routing by expert; moe_combine: undoes it, weighted ---------------- */
/*   indices       uint32 [tokens, top_k], of moe_gate
 *   row_token     uint32 [tokens * top_k]: token of each sorted row, a_rows of a grouped GEMM
 *   row_of        uint32 [tokens, top_k]: sorted row of each pair
 *   segment_ends  uint32 [experts]
 *   tiles         hadal_device_moe_tile [hadal_grouped_gemm_max_tiles(tokens * top_k, ...)]
 *   commands      VkDispatchIndirectCommand [command_count], for GEMMs over the tiles */
typedef struct hadal_moe_permute_desc {
  size_t struct_size;
  uint32_t tokens, experts, top_k;
  uint32_t tile_m;        /* of hadal_grouped_gemm_tiling, the smallest of the list's users */
  uint32_t command_count; /* at most 4 */
  uint32_t groups_x[4];   /* x of each command, of hadal_grouped_gemm_tiling */
} hadal_moe_permute_desc;
typedef struct hadal_moe_permute_args {
  size_t struct_size;
  uint32_t tokens; /* 0 still writes segment_ends and commands, of no rows */
  hadal_range indices, row_token, row_of, segment_ends, tiles, commands;
} hadal_moe_permute_args;
HADAL_API hadal_status hadal_moe_permute_plan(hadal_context* context,
                                              const hadal_moe_permute_desc* desc, hadal_plan** plan,
                                              hadal_error* error);
HADAL_API hadal_status hadal_moe_permute_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                const hadal_moe_permute_args* args,
                                                hadal_error* error);

/*   x[t] = (x[t]) + (shared[t]) + sum over slots of weights[t,s] * y[row_of[t,s]]
 *   x, shared  float [tokens, hidden];  y  float [rows, hidden], tokens * top_k rows at most */
typedef uint32_t hadal_moe_combine_flags;
enum { HADAL_MOE_COMBINE_ACCUMULATE = 1, HADAL_MOE_COMBINE_SHARED = 2 };
typedef struct hadal_moe_combine_desc {
  size_t struct_size;
  uint32_t tokens, hidden, top_k;
  uint32_t x_stride, shared_stride, y_stride;
  hadal_moe_combine_flags flags;
} hadal_moe_combine_desc;
typedef struct hadal_moe_combine_args {
  size_t struct_size;
  uint32_t tokens;
  hadal_range x, shared, y, row_of, weights;
} hadal_moe_combine_args;
HADAL_API hadal_status hadal_moe_combine_plan(hadal_context* context,
                                              const hadal_moe_combine_desc* desc, hadal_plan** plan,
                                              hadal_error* error);
HADAL_API hadal_status hadal_moe_combine_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                const hadal_moe_combine_args* args,
                                                hadal_error* error);

/* ---- moe_tiles: the tile list for a router of the host's own --------------------------------- */
/*   segments  uint32 [experts]: the row behind each expert's last one, ascending; or, with m_max,
 *             the masked form: expert e has the first segments[e] of rows e * m_max and on
 *   tiles     hadal_device_moe_tile [hadal_grouped_gemm_max_tiles], masked: of experts * m_max rows
 *   commands  VkDispatchIndirectCommand [command_count] */
typedef struct hadal_moe_tiles_desc {
  size_t struct_size;
  uint32_t experts;
  uint32_t rows;          /* of all experts; masked: 0, they are experts * m_max */
  uint32_t m_max;         /* not 0: masked */
  uint32_t tile_m;        /* as moe_permute */
  uint32_t command_count; /* at most 4 */
  uint32_t groups_x[4];   /* as moe_permute */
} hadal_moe_tiles_desc;
typedef struct hadal_moe_tiles_args {
  size_t struct_size;
  hadal_range segments, tiles, commands;
} hadal_moe_tiles_args;
HADAL_API hadal_status hadal_moe_tiles_plan(hadal_context* context,
                                            const hadal_moe_tiles_desc* desc, hadal_plan** plan,
                                            hadal_error* error);
HADAL_API hadal_status hadal_moe_tiles_record(const hadal_plan* plan, VkCommandBuffer commands,
                                              const hadal_moe_tiles_args* args, hadal_error* error);

/* ---- multi-head latent attention ------------------------------------------------------------- */
/* The cache keeps a row [latent | rotated key] of rank + rope channels per token, in pages of 64
 * rows. FP8 rows (e4m3 codes, a float scale per 128, a bfloat16 key) have strides in bytes. */
typedef uint32_t hadal_cache_format;
enum { HADAL_CACHE_F32 = 0, HADAL_CACHE_BF16 = 1, HADAL_CACHE_FP8 = 2 };
#define HADAL_PAGE_TOKENS 64 /* rows of a page */
/* A row_stride for a cache of one's own, in its unit, and the bytes of a row of it; 0 for a format
 * that does not exist or rank + rope of 2^30 or more. Any thread. */
HADAL_API uint32_t hadal_cache_row_stride(hadal_cache_format format, uint32_t rank, uint32_t rope);
/* See hadal_cache_row_stride. */
HADAL_API uint64_t hadal_cache_row_bytes(hadal_cache_format format, uint32_t row_stride);

/* mla_cache_write: cache[slots[t]] = [rms_norm(y[t, :rank]) * weight | rope(y[t, rank:])]
 *   y  float [tokens, rank + rope];  weight  float [rank];  positions, slots  uint32 [tokens]
 *   table  as rope's, of rope/2 pairs for max_position positions;  cache  [cache_rows] rows
 * A slot of cache_rows or more is not stored. */
typedef uint32_t hadal_latent_rounding; /* of the normalised latent before it is stored */
enum { HADAL_LATENT_EXACT = 0, HADAL_LATENT_FP8 = 1, HADAL_LATENT_FP8_UE8M0 = 2 };
typedef struct hadal_mla_cache_write_desc {
  size_t struct_size;
  uint32_t tokens, rank, rope;
  uint32_t y_stride, row_stride;
  uint32_t cache_rows, max_position;
  VkBool32 half_split; /* as rope */
  float eps;           /* 0: 1e-6 */
  hadal_cache_format cache_format;
  hadal_latent_rounding rounding;
} hadal_mla_cache_write_desc;
typedef struct hadal_mla_cache_write_args {
  size_t struct_size;
  uint32_t tokens;
  hadal_range y, weight, positions, table, slots, cache;
} hadal_mla_cache_write_args;
HADAL_API hadal_status hadal_mla_cache_write_plan(hadal_context* context,
                                                  const hadal_mla_cache_write_desc* desc,
                                                  hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_mla_cache_write_record(const hadal_plan* plan,
                                                    VkCommandBuffer commands,
                                                    const hadal_mla_cache_write_args* args,
                                                    hadal_error* error);

/* mla_cache_read: gathers positions begin .. begin + rows of one sequence out of the cache
 *   block_table  uint32 [table_pages]: position p is row block_table[p / 64] * 64 + p % 64
 *   latent  float [rows, rank];  k_pe  float [rows, rope];  q, scale  as fp8_quantize of latent;
 *   each optional, q and scale together */
typedef struct hadal_mla_cache_read_desc {
  size_t struct_size;
  uint32_t rank, rope;
  uint32_t row_stride, latent_stride, k_pe_stride, q_stride, scale_stride;
  uint32_t cache_rows;
  uint32_t table_pages; /* the most of a call; begin + rows <= 64 * table_pages */
  hadal_scale_format scale_format;
  hadal_cache_format cache_format;
} hadal_mla_cache_read_desc;
typedef struct hadal_mla_cache_read_args {
  size_t struct_size;
  uint32_t begin, rows;
  hadal_range cache, block_table, latent, k_pe, q, scale;
} hadal_mla_cache_read_args;
HADAL_API hadal_status hadal_mla_cache_read_plan(hadal_context* context,
                                                 const hadal_mla_cache_read_desc* desc,
                                                 hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_mla_cache_read_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                   const hadal_mla_cache_read_args* args,
                                                   hadal_error* error);

typedef uint32_t hadal_attention_flags;
enum { HADAL_ATTENTION_NO_HALVES = 1 /* no path whose operands are halves (matrix units) */ };

/* mla_decode: attention of single tokens over the paged cache, absorbed form
 *   s[j] = (q_latent . c[j] + q_pe . k_pe[j]) * scale;  o = sum_j softmax(s)[j] c[j]
 *   q_latent  float [tokens, heads, rank];  q_pe  float [tokens, heads, rope]
 *   cache     [cache_rows] rows;  block_tables  uint32 [tokens / q_len, table_stride]
 *   kv_lens   uint32 [tokens / q_len], at most max_kv_len counts
 *   o         float or bfloat16 [tokens, heads, rank];  lse  float [tokens, heads], optional
 *   scratch   hadal_plan_scratch_bytes
 * rank a multiple of 4 up to 1024, rope of 4. More than 1,024 keys take two dispatches with a
 * barrier between. */
typedef struct hadal_mla_decode_desc {
  size_t struct_size;
  uint32_t tokens, heads, rank, rope;
  uint32_t q_len; /* queries of a sequence, which are neighbouring tokens; 0: 1; divides tokens */
  uint32_t max_kv_len, cache_rows;
  uint32_t q_latent_row_stride, q_latent_head_stride, q_pe_row_stride, q_pe_head_stride;
  uint32_t row_stride, table_stride; /* table_stride 0: ceil(max_kv_len / 64) */
  uint32_t o_row_stride, o_head_stride;
  float scale; /* of the softmax; as it stands */
  hadal_cache_format cache_format;
  hadal_element_type o_type;
  hadal_attention_flags flags;
} hadal_mla_decode_desc;
typedef struct hadal_mla_decode_args {
  size_t struct_size;
  uint32_t tokens;
  uint32_t max_kv_len; /* of this call, at most the desc's; 0: the desc's */
  hadal_range q_latent, q_pe, cache, block_tables, kv_lens, o, lse, scratch;
} hadal_mla_decode_args;
HADAL_API hadal_status hadal_mla_decode_plan(hadal_context* context,
                                             const hadal_mla_decode_desc* desc, hadal_plan** plan,
                                             hadal_error* error);
HADAL_API hadal_status hadal_mla_decode_record(const hadal_plan* plan, VkCommandBuffer commands,
                                               const hadal_mla_decode_args* args,
                                               hadal_error* error);

/* mla_prefill: causal attention, unabsorbed form, of one sequence or of a batch of them
 *   s[i,j] = (q[i,:nope] . kv[j,:nope] + q[i,nope:] . k_pe[j]) * scale for j <= i
 *   q      float [q_len, heads, nope + rope];  kv  float [kv_rows, heads, nope + v]
 *   k_pe   float [kv_rows, rope];  o  float [q_len, heads, v]
 *   state  float [q_len, heads, 2], optional for a call that is FIRST and LAST
 *   sequences  hadal_device_mla_sequence [sequences], of a batch
 * Keys may come in chunks (kv_begin a multiple of 64), each a call; calls of one sequence need a
 * barrier between. q, kv and k_pe are 8-byte aligned. */
enum { HADAL_MLA_FIRST = 1, HADAL_MLA_LAST = 2 };
typedef struct hadal_device_mla_sequence { /* device memory */
  uint32_t q_row, q_len, q_begin; /* its rows of q, o and state; absolute position of the first */
  uint32_t kv_row, kv_rows, kv_begin; /* its rows of kv and k_pe; absolute position of the first */
  uint32_t flags;                     /* HADAL_MLA_FIRST, HADAL_MLA_LAST */
} hadal_device_mla_sequence;
typedef struct hadal_mla_prefill_desc {
  size_t struct_size;
  uint32_t q_len, heads, nope, rope, v;
  uint32_t q_row_stride, q_head_stride, kv_row_stride, k_pe_stride, o_row_stride, o_head_stride;
  float scale;
  VkBool32 batch;     /* calls are batches */
  uint32_t max_q_len; /* of one sequence of a batch; 0: q_len */
  hadal_attention_flags flags;
} hadal_mla_prefill_desc;
typedef struct hadal_mla_prefill_args {
  size_t struct_size;
  uint32_t q_len, q_begin; /* a batch: rows of all sequences; q_begin, kv_begin, flags unused */
  uint32_t kv_begin, kv_rows;
  uint32_t flags;          /* HADAL_MLA_FIRST and HADAL_MLA_LAST; both on an only call */
  uint32_t sequence_count; /* of a batch, at least 1 */
  hadal_range q, kv, k_pe, o, state, scratch, sequences;
} hadal_mla_prefill_args;
HADAL_API hadal_status hadal_mla_prefill_plan(hadal_context* context,
                                              const hadal_mla_prefill_desc* desc, hadal_plan** plan,
                                              hadal_error* error);
HADAL_API hadal_status hadal_mla_prefill_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                const hadal_mla_prefill_args* args,
                                                hadal_error* error);

/* mla_absorb: the absorbed projections of mla_decode, from kv_b_proj's own bytes
 *   QUERY  out[t,h,l] = sum_p in[t,h,p] w[h*(nope+v) + p, l]
 *   VALUE  out[t,h,j] = sum_l in[t,h,l] w[h*(nope+v) + nope + j, l]
 *   in   float [tokens, heads, nope | rank];  out  float [tokens, heads, rank | v]
 *   w    e4m3 or bfloat16 [heads*(nope+v), rank], 16-byte aligned rows
 *   w_scale  float [ceil(heads*(nope+v)/128), ceil(rank/128)], of e4m3 */
typedef uint32_t hadal_absorb_direction;
enum { HADAL_ABSORB_QUERY = 0, HADAL_ABSORB_VALUE = 1 };
typedef uint32_t hadal_absorb_weight;
enum { HADAL_ABSORB_E4M3 = 0, HADAL_ABSORB_BF16 = 1 };
typedef struct hadal_mla_absorb_desc {
  size_t struct_size;
  uint32_t tokens, heads, nope, v, rank;
  hadal_absorb_direction direction;
  hadal_absorb_weight weight_type;
  uint32_t w_stride, w_scale_stride;
  uint32_t in_token_stride, in_head_stride, out_token_stride, out_head_stride;
} hadal_mla_absorb_desc;
typedef struct hadal_mla_absorb_args {
  size_t struct_size;
  uint32_t tokens;
  hadal_range in, w, w_scale, out;
} hadal_mla_absorb_args;
HADAL_API hadal_status hadal_mla_absorb_plan(hadal_context* context,
                                             const hadal_mla_absorb_desc* desc, hadal_plan** plan,
                                             hadal_error* error);
HADAL_API hadal_status hadal_mla_absorb_record(const hadal_plan* plan, VkCommandBuffer commands,
                                               const hadal_mla_absorb_args* args,
                                               hadal_error* error);

/* ---- sample: draws one token id per row of logits -------------------------------------------- */
/*   logits  float [rows, vocab];  params  hadal_device_sample_params [rows];  ids  uint32 [rows] */
typedef struct hadal_device_sample_params { /* device memory */
  float temperature;                        /* 0: the largest logit */
  uint32_t top_k;                           /* 0: off */
  float top_p;                              /* 1: off */
  float min_p;                              /* 0: off */
  uint32_t seed_lo, seed_hi, position;      /* the draw is a function of these */
  uint32_t reserved;                        /* 0 */
} hadal_device_sample_params;
typedef struct hadal_sample_desc {
  size_t struct_size;
  uint32_t rows, vocab;
  uint32_t logits_stride;
} hadal_sample_desc;
typedef struct hadal_sample_args {
  size_t struct_size;
  uint32_t rows;
  hadal_range logits, params, ids;
} hadal_sample_args;
HADAL_API hadal_status hadal_sample_plan(hadal_context* context, const hadal_sample_desc* desc,
                                         hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_sample_record(const hadal_plan* plan, VkCommandBuffer commands,
                                           const hadal_sample_args* args, hadal_error* error);

/* ---- logit_adjust: penalties, biases and masks, before sample -------------------------------- */
/*   x       float [rows, vocab];  y  float [rows, vocab], x itself with IN_PLACE
 *   listed  hadal_device_logit_row [listed], each row at most once
 *   edits   hadal_device_logit_edit [edits]
 *   masks   uint32 [masks, ceil(vocab / 32)], bit 1: the token is allowed
 * An edited logit l: l > 0 ? l * inverse_repetition : l * repetition where the token occurred;
 * minus frequency * generated and presence where it was generated; plus bias. In args listed, edits
 * and masks are counts, and listed_rows, edit_list and mask_bits the lists. */
#define HADAL_NO_LOGIT_MASK 0xffffffffu /* every token is allowed */
typedef struct hadal_device_logit_row { /* device memory */
  uint32_t row;
  uint32_t mask;                        /* a row of masks, or HADAL_NO_LOGIT_MASK */
  uint32_t edits_begin, edits_end;      /* its edits in the list */
  float repetition, inverse_repetition; /* 1: off */
  float frequency, presence;            /* 0: off */
} hadal_device_logit_row;
typedef struct hadal_device_logit_edit { /* device memory */
  uint32_t id;                           /* of the token */
  uint32_t prompt, generated;            /* how often it occurred in each */
  float bias;
} hadal_device_logit_edit;
typedef struct hadal_logit_adjust_desc {
  size_t struct_size;
  uint32_t rows, vocab;
  uint32_t x_stride, y_stride;   /* y_stride is not looked at in place */
  uint32_t listed, edits, masks; /* the most of a call */
  VkBool32 in_place;             /* y is x; args.y is not looked at */
} hadal_logit_adjust_desc;
typedef struct hadal_logit_adjust_args {
  size_t struct_size;
  uint32_t rows, listed, edits, masks;
  hadal_range x, y, listed_rows, edit_list, mask_bits;
} hadal_logit_adjust_args;
HADAL_API hadal_status hadal_logit_adjust_plan(hadal_context* context,
                                               const hadal_logit_adjust_desc* desc,
                                               hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_logit_adjust_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                 const hadal_logit_adjust_args* args,
                                                 hadal_error* error);

/* ---- top_logprobs: log-probabilities of a chosen token and of the most probable ones --------- */
/*   logits   float [rows, vocab];  listed_rows  uint32 [listed], optional: without it row i is i
 *   ids      uint32 [rows];  logprobs  float [listed]
 *   top_ids  uint32 [listed, top];  top_logprobs  float [listed, top], top up to 20 */
typedef struct hadal_top_logprobs_desc {
  size_t struct_size;
  uint32_t rows, vocab;
  uint32_t logits_stride;
  uint32_t top;
} hadal_top_logprobs_desc;
typedef struct hadal_top_logprobs_args {
  size_t struct_size;
  uint32_t rows, listed; /* listed up to rows; 0: rows */
  hadal_range logits, listed_rows, ids, logprobs, top_ids, top_logprobs;
} hadal_top_logprobs_args;
HADAL_API hadal_status hadal_top_logprobs_plan(hadal_context* context,
                                               const hadal_top_logprobs_desc* desc,
                                               hadal_plan** plan, hadal_error* error);
HADAL_API hadal_status hadal_top_logprobs_record(const hadal_plan* plan, VkCommandBuffer commands,
                                                 const hadal_top_logprobs_args* args,
                                                 hadal_error* error);

#ifdef __cplusplus
}
#endif

#endif /* HADAL_HADAL_H */
