// Copies of a golden checkpoint with something wrong: its config as JSON and its tensors in memory,
// to be changed and written as one model.safetensors.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hadal/model/safetensors.h"
#include "support/golden.h"
#include "support/safetensors_writer.h"

namespace hadal::test {

struct ModelFiles {
  struct Tensor {
    std::string name, dtype;
    std::vector<uint64_t> shape;
    std::string data;
  };
  nlohmann::json config;
  std::vector<Tensor> tensors;

  [[nodiscard]] static ModelFiles read(const std::filesystem::path& dir) {
    ModelFiles files;
    files.config = nlohmann::json::parse(hadal::testing::read_file(dir / "config.json"));
    const auto checkpoint = model::Checkpoint::open(dir);
    EXPECT_TRUE(checkpoint.ok());
    for (const model::TensorView& t : checkpoint->tensors()) {
      files.tensors.push_back({t.name,
                               std::string(model::dtype_name(t.dtype)),
                               t.shape,
                               {reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()}});
    }
    return files;
  }

  // The tensor of this name; a test failure (and some tensor) when there is none.
  [[nodiscard]] Tensor& tensor(const std::string& name) {
    for (Tensor& t : tensors) {
      if (t.name == name) return t;
    }
    ADD_FAILURE() << "no tensor " << name;
    return tensors.front();
  }
  void remove(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& t) { return t.name == name; });
  }
  // The same number of elements' worth of zeros in another type or shape.
  void retype(const std::string& name, const std::string& dtype) {
    Tensor& t = tensor(name);
    uint64_t bytes = dtype.ends_with("32") ? 4 : dtype.ends_with("16") ? 2 : 1;
    for (const uint64_t dim : t.shape) bytes *= dim;
    t.dtype = dtype;
    t.data.assign(bytes, '\0');
  }
  void reshape(const std::string& name, std::vector<uint64_t> shape) {
    Tensor& t = tensor(name);
    t.shape = std::move(shape);
    retype(name, t.dtype);
  }

  [[nodiscard]] std::string safetensors() const {
    hadal::testing::SafetensorsWriter writer;
    for (const Tensor& t : tensors) writer.add(t.name, t.dtype, t.shape, t.data);
    return writer.bytes();
  }
  void write(const std::filesystem::path& dir) const {
    hadal::testing::write_file(dir / "config.json", config.dump());
    hadal::testing::write_file(dir / "model.safetensors", safetensors());
  }
};

}  // namespace hadal::test
