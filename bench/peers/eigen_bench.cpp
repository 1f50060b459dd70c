// Eigen's float product at one shape: D[m,n] = A[m,k] B[n,k]^T, what hadal's GEMMs compute.
//   g++ -O3 -march=native -std=c++20 -I/usr/include/eigen3 eigen_bench.cpp -o eigen_bench
//   eigen_bench KERNEL m n k        prints one JSON object; KERNEL is the kernel it is compared
//   with
#include <Eigen/Core>
#include <cmath>
#include <cstring>
#include <string>

#include "peer.h"

namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColumnMajor = Eigen::MatrixXf;

void fill(float* values, size_t count, uint64_t seed) {
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    values[i] = float(int32_t(seed >> 32)) * 0x1p-31f;
  }
}

// Worst error of a sample of elements over gamma(k) * sum |terms|.
template <class Product>
double worst_error(const ColumnMajor& a, const RowMajor& b, const Product& d) {
  double worst = 0;
  for (int64_t i = 0; i < 64; ++i) {
    const int64_t row = i * 7919 % a.cols(), column = (i * 104729 + b.rows() - 1) % b.rows();
    double value = 0, magnitude = 0;
    for (int64_t k = 0; k < a.rows(); ++k) {
      const double term = double(a(k, row)) * double(b(column, k));
      value += term, magnitude += std::fabs(term);
    }
    const double bound = double(a.rows()) * 0x1p-23 * magnitude;
    worst = std::fmax(worst, std::fabs(double(d(column, row)) - value) / bound);
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: eigen_bench KERNEL m n k\n");
    return 2;
  }
  const int64_t m = std::atoll(argv[2]), n = std::atoll(argv[3]), k = std::atoll(argv[4]);
  // The weight's rows and the activations' rows are contiguous, as in hadal: x is [k, m] by
  // columns.
  RowMajor weight(n, k);
  ColumnMajor x(k, m), y(n, m);
  fill(weight.data(), size_t(n * k), 1);
  fill(x.data(), size_t(m * k), 2);
  const auto run = [&] {
    const double start = peer::now_ns();
    if (m == 1) {
      y.col(0).noalias() = weight * x.col(0);
    } else {
      y.noalias() = weight * x;
    }
    return peer::now_ns() - start;
  };
  run();
  peer::Report report;
  report.kernel = argv[1];
  report.shape = std::string("m=") + argv[2] + ",n=" + argv[3] + ",k=" + argv[4];
  report.path = "eigen";
  report.device = "cpu";
#ifdef EIGEN_PATCH_VERSION  // from Eigen 5 on
#define EIGEN_NUMBERS EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION, EIGEN_PATCH_VERSION
#else
#define EIGEN_NUMBERS EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION
#endif
  char driver[80];
  std::snprintf(driver, sizeof driver, "Eigen %d.%d.%d, g++ %s -O3 -march=native", EIGEN_NUMBERS,
                __VERSION__);
  report.driver = driver;
  report.flop = 2.0 * double(m) * double(n) * double(k);
  report.bytes = 4.0 * (double(n) * double(k) + double(m) * double(k) + double(m) * double(n));
  report.worst = worst_error(x, weight, y);
  if (!(report.worst <= 1)) {
    std::fprintf(stderr, "eigen_bench: wrong result\n");
    return 1;
  }
  peer::print(report, peer::sample(run));
}
