#include <dlfcn.h>
#include <stdint.h>

#include <string>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

/** libcapstone's interface as far as it is used here; its versions 4 and 5 differ in the room for an instruction's bytes. */
namespace capstone {

constexpr int kX86 = 3;
constexpr int kMode16 = 1 << 1, kMode32 = 1 << 2, kMode64 = 1 << 3;
constexpr int kSyntax = 1, kAtt = 2;
/** What is no instruction is shown as a byte. */
constexpr int kSkipData = 5, kOn = 3;

template <size_t Room>
struct Instruction {
  unsigned id;
  uint64_t address;
  uint16_t size;
  uint8_t bytes[Room];
  char mnemonic[32];
  char operands[160];
};

struct Library {
  int (*open)(int architecture, int mode, size_t* handle);
  int (*option)(size_t handle, int type, size_t value);
  size_t (*disassemble)(size_t handle, const uint8_t* code, size_t size, uint64_t address, size_t count, void** instructions);
  void (*free)(void* instructions, size_t count);
  int (*close)(size_t* handle);
  int version;
};

template <typename Function>
bool Find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  return function != nullptr;
}

const Library* Open(std::string& error) {
  static Library library = {};
  if (library.version != 0) return &library;
  for (const int version : {4, 5}) {
    const std::string name = "libcapstone.so." + std::to_string(version);
    void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      if (error.empty()) error = dlerror();
      continue;
    }
    if (Find(handle, "cs_open", library.open) && Find(handle, "cs_option", library.option) &&
        Find(handle, "cs_disasm", library.disassemble) && Find(handle, "cs_free", library.free) &&
        Find(handle, "cs_close", library.close)) {
      library.version = version;
      return &library;
    }
    error = name + " lacks functions";
    dlclose(handle);
  }
  return nullptr;
}

}  // namespace capstone

template <size_t Room>
Napi::Value Result(Napi::Env env, const void* instruction) {
  const auto* found = static_cast<const capstone::Instruction<Room>*>(instruction);
  Napi::Array result = Napi::Array::New(env, 3);
  result.Set(0u, Napi::Number::New(env, found->size));
  result.Set(1u, Napi::String::New(env, found->mnemonic));
  result.Set(2u, Napi::String::New(env, found->operands));
  return result;
}

// disassemble(code, address, bits): [bytes, mnemonic, operands] of its first instruction in AT&T's syntax; undefined where
// there is none; the loader's complaint where there is no libcapstone
Napi::Value Disassemble(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::string error;
  const capstone::Library* library = capstone::Open(error);
  if (library == nullptr) return Napi::String::New(env, error);
  const Bytes code = BytesOf(info[0], "code");
  bool lossless;
  const uint64_t address = info[1].As<Napi::BigInt>().Uint64Value(&lossless);
  const int bits = info[2].As<Napi::Number>().Int32Value();
  size_t handle;
  const int mode = bits == 64 ? capstone::kMode64 : bits == 32 ? capstone::kMode32 : capstone::kMode16;
  if (library->open(capstone::kX86, mode, &handle) != 0) return Napi::String::New(env, "libcapstone knows no x86");
  library->option(handle, capstone::kSyntax, capstone::kAtt);
  library->option(handle, capstone::kSkipData, capstone::kOn);
  void* instruction = nullptr;
  const size_t count = library->disassemble(handle, code.data, code.length, address, 1, &instruction);
  Napi::Value result = env.Undefined();
  if (count > 0) {
    result = library->version == 4 ? Result<16>(env, instruction) : Result<24>(env, instruction);
    library->free(instruction, count);
  }
  library->close(&handle);
  return result;
}

}  // namespace

void DefineDisassembler(Napi::Env env, Napi::Object exports) {
  exports.Set("disassemble", Napi::Function::New<Disassemble>(env, "disassemble"));
}

}  // namespace southbridge
