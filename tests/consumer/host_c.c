/* A C host: asks what its device needs, lends it, quantises, multiplies, checks against itself. */
#include <math.h>

#include "vulkan_host.h"

enum { M = 3, N = 40, K = 256, BLOCKS = 2 };

static float decode_e4m3(unsigned char code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude =
      exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
  return code & 0x80 ? -magnitude : magnitude;
}

/* The largest relative difference between what hadal wrote and the formula over its own codes. */
static double worst_error(const host_buffer* a, const host_buffer* a_scale, const host_buffer* b,
                          const host_buffer* b_scale, const host_buffer* d) {
  double worst = 0;
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      double sum = 0, magnitude = 0;
      for (int k = 0; k < K; ++k) {
        const double term = (double)decode_e4m3(((unsigned char*)a->mapped)[m * K + k]) *
                            decode_e4m3(((unsigned char*)b->mapped)[n * K + k]) *
                            ((float*)a_scale->mapped)[m * BLOCKS + k / 128] *
                            ((float*)b_scale->mapped)[n * BLOCKS + k / 128];
        sum += term;
        magnitude += fabs(term);
      }
      const double error = fabs(((float*)d->mapped)[m * N + n] - sum);
      if (!(error <= worst * magnitude)) worst = error / magnitude;
    }
  }
  return worst;
}

static void quantize(hadal_plan* plan, VkCommandBuffer commands, uint32_t rows,
                     const host_buffer* x, const host_buffer* q, const host_buffer* scale) {
  hadal_error error = HADAL_ERROR_INIT;
  hadal_fp8_quantize_args args;
  memset(&args, 0, sizeof(args));
  args.struct_size = sizeof(args);
  args.rows = rows;
  args.x = host_range(x);
  args.q = host_range(q);
  args.scale = host_range(scale);
  HOST_OK(hadal_fp8_quantize_record(plan, commands, &args, &error));
}

int main(void) {
  static host_instance instance;
  static host_device device;
  VkPhysicalDevice devices[8];
  hadal_error error = HADAL_ERROR_INIT;
  if (!host_instance_create(&instance) || host_physical_devices(&instance, devices) == 0) {
    fprintf(stderr, "no Vulkan device or validation layer\n");
    return 77;
  }
  host_device_create(&instance, devices[0], &device);
  const hadal_context_info info = host_context_info(&device);
  hadal_context* context = NULL;
  HOST_OK(hadal_context_create(&info, &context, &error));

  host_buffer x = host_buffer_create(&device, M * K * 4, 0),
              w = host_buffer_create(&device, N * K * 4, 0);
  host_buffer a = host_buffer_create(&device, M * K, 0xff),
              b = host_buffer_create(&device, N * K, 0xff);
  host_buffer a_scale = host_buffer_create(&device, M * BLOCKS * 4, 0xff);
  host_buffer b_scale = host_buffer_create(&device, N * BLOCKS * 4, 0xff);
  host_buffer d = host_buffer_create(&device, M * N * 4, 0xff);
  for (int i = 0; i < M * K; ++i) ((float*)x.mapped)[i] = sinf((float)i);
  for (int i = 0; i < N * K; ++i) ((float*)w.mapped)[i] = 0.1f * cosf(3.0f * (float)i);

  hadal_fp8_quantize_desc codes;
  memset(&codes, 0, sizeof(codes));
  codes.struct_size = sizeof(codes);
  codes.rows = N;
  codes.k = K;
  hadal_plan* to_codes = NULL;
  HOST_OK(hadal_fp8_quantize_plan(context, &codes, &to_codes, &error));
  hadal_fp8_gemm_desc gemm;
  memset(&gemm, 0, sizeof(gemm));
  gemm.struct_size = sizeof(gemm);
  gemm.m = M;
  gemm.n = N;
  gemm.k = K;
  gemm.b_scale_rows = 1;
  hadal_plan* product = NULL;
  HOST_OK(hadal_fp8_gemm_plan(context, &gemm, &product, &error));
  printf("%s\n%s\n", hadal_plan_description(to_codes), hadal_plan_description(product));

  VkCommandBuffer commands = host_begin(&device, device.pool);
  quantize(to_codes, commands, M, &x, &a, &a_scale);
  quantize(to_codes, commands, N, &w, &b, &b_scale);
  HOST_OK(hadal_barrier_record(context, commands, &error));
  hadal_fp8_gemm_args args;
  memset(&args, 0, sizeof(args));
  args.struct_size = sizeof(args);
  args.m = M;
  args.a = host_range(&a);
  args.a_scale = host_range(&a_scale);
  args.b = host_range(&b);
  args.b_scale = host_range(&b_scale);
  args.d = host_range(&d);
  HOST_OK(hadal_fp8_gemm_record(product, commands, &args, &error));
  host_submit(&device, device.queue, commands);

  /* 2^-23 for each of the 130 roundings of a block and its two folds, over the magnitudes. */
  const double worst = worst_error(&a, &a_scale, &b, &b_scale, &d);
  printf("worst error %.3g of the magnitudes\n", worst);
  HOST_CHECK(worst <= 132 * ldexp(1, -23));

  hadal_plan_destroy(product);
  hadal_plan_destroy(to_codes);
  HOST_OK(hadal_context_destroy(context, &error));
  host_buffer* const buffers[] = {&x, &w, &a, &b, &a_scale, &b_scale, &d};
  for (int i = 0; i < 7; ++i) host_buffer_destroy(&device, buffers[i]);
  host_device_destroy(&device);
  host_instance_destroy(&instance);
  HOST_CHECK(instance.messages == 0);
  return 0;
}
