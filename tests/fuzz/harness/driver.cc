// The main program of a fuzz target where the compiler has no libFuzzer: mutates a corpus from a printed seed, without
// a look at what the target covers. It understands what ctest passes to libFuzzer, and goes by the same exit code:
//
//   fuzz_X [-max_total_time=SECONDS] [-runs=N] [-seed=N] [-timeout=SECONDS] [-artifact_prefix=PATH] [DIR|FILE]...
//
// Files are run as they are. Without any, inputs are made of what the directories hold, and of nothing; an input that
// ends the process, or does not end, is written to a file, which repeats the failure.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
// Of the sanitizers' runtime, where there is one: they end the process themselves.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kMostBytes = 4096;
constexpr int kExitFailed = 77;

struct Options {
  double seconds = 0;  // 0: not limited
  std::uint64_t runs = 0;
  std::uint64_t seed = 0;
  unsigned timeout = 60;
  std::string artifacts = "./";
  std::vector<fs::path> paths;
};

// What the handlers below need, which may not allocate.
Bytes running;
char artifact[512];

void save_running(const char* why) {
  const int file = ::open(artifact, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return;
  const ssize_t written = ::write(file, running.data(), running.size());
  ::close(file);
  std::fprintf(stderr, "%s; input of %zd bytes written to %s\n", why, written, artifact);
}

void on_signal(int signal) {
  std::signal(signal, SIG_DFL);
  save_running(signal == SIGALRM ? "the input takes too long" : "the input ends the process");
  if (signal == SIGALRM) ::_exit(kExitFailed);
  ::raise(signal);
}

void on_death() { save_running("the sanitizers object"); }

// Sanitizers have handlers of their own for what they know.
void install_handlers() {
  std::signal(SIGALRM, on_signal);
  std::signal(SIGABRT, on_signal);
  std::signal(SIGTRAP, on_signal);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(on_death);
    return;
  }
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, on_signal);
}

void run(Bytes input, const Options& options) {
  running = std::move(input);
  ::alarm(options.timeout);
  // Memory of exactly that size, for the sanitizers.
  const Bytes exact(running.begin(), running.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  ::alarm(0);
}

Bytes read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Mutator {
 public:
  Mutator(const std::vector<Bytes>& corpus, std::uint64_t seed) : corpus_(corpus), random_(seed) {}

  Bytes next() {
    Bytes bytes;
    if (!corpus_.empty() && pick(8) != 0) bytes = corpus_[pick(corpus_.size())];
    if (bytes.empty()) append_random(bytes);
    for (std::uint64_t n = pick(5); n > 0; --n) mutate(bytes);
    if (bytes.size() > kMostBytes) bytes.resize(kMostBytes);
    return bytes;
  }

 private:
  std::uint64_t pick(std::uint64_t n) { return random_() % n; }
  std::uint8_t byte() { return static_cast<std::uint8_t>(random_()); }
  std::ptrdiff_t place(const Bytes& bytes) { return static_cast<std::ptrdiff_t>(pick(bytes.size())); }

  void append_random(Bytes& bytes) {
    // Mostly short ones.
    for (std::uint64_t n = 1 + pick(1 + (kMostBytes >> pick(12))); n > 0; --n) bytes.push_back(byte());
  }
  void overwrite(Bytes& bytes, std::uint64_t word, std::uint64_t length) {
    const std::uint64_t at = pick(bytes.size());
    for (std::uint64_t i = 0; i < length && at + i < bytes.size(); ++i)
      bytes[at + i] = static_cast<std::uint8_t>(word >> 8 * i);
  }
  void mutate(Bytes& bytes) {
    static constexpr std::uint64_t kWords[] = {0, 1, 7, 8, 0x7f, 0x7fff'ffff, 0x8000'0000, ~std::uint64_t{0}};
    if (bytes.empty()) return append_random(bytes);
    const std::ptrdiff_t at = place(bytes);
    const std::ptrdiff_t length =
        1 + static_cast<std::ptrdiff_t>(pick(std::min<std::size_t>(64, bytes.size())));
    const auto rest = static_cast<std::ptrdiff_t>(bytes.size()) - at;
    const auto from = bytes.begin() + at;
    switch (pick(9)) {
      case 0: *from = byte(); break;
      case 1: *from = static_cast<std::uint8_t>(*from ^ 1u << pick(8)); break;
      case 2: overwrite(bytes, kWords[pick(std::size(kWords))], 1u << pick(4)); break;
      case 3: overwrite(bytes, pick(1u << pick(20)), 1u << pick(4)); break;
      case 4: bytes.erase(from, from + std::min(length, rest)); break;
      case 5: bytes.insert(from, static_cast<std::size_t>(length), byte()); break;
      case 6: {
        const Bytes copy(from, from + std::min(length, rest));
        bytes.insert(bytes.begin() + place(bytes), copy.begin(), copy.end());
        break;
      }
      case 7: append_random(bytes); break;
      default: {
        if (corpus_.empty()) return;
        const Bytes& other = corpus_[pick(corpus_.size())];
        bytes.resize(static_cast<std::size_t>(at));
        bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(pick(other.size() + 1)),
                     other.end());
      }
    }
  }

  const std::vector<Bytes>& corpus_;
  std::mt19937_64 random_;
};

Options parse(int count, char** arguments) {
  Options options;
  options.seed = std::random_device{}();
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    const std::size_t equals = argument.find('=');
    if (!argument.starts_with('-')) {
      options.paths.emplace_back(argument);
      continue;
    }
    const std::string_view name = argument.substr(0, equals);
    const std::string value(equals == std::string_view::npos ? "" : argument.substr(equals + 1));
    if (name == "-max_total_time") options.seconds = std::strtod(value.c_str(), nullptr);
    if (name == "-runs") options.runs = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "-seed") options.seed = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "-timeout") options.timeout = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    if (name == "-artifact_prefix") options.artifacts = value;
  }
  return options;
}

void name_artifact(const Options& options, std::uint64_t number) {
  std::snprintf(artifact, sizeof artifact, "%scrash-%llu", options.artifacts.c_str(),
                static_cast<unsigned long long>(number));
}

}  // namespace

int main(int count, char** arguments) {
  const Options options = parse(count, arguments);
  install_handlers();
  std::vector<Bytes> corpus;
  bool only_files = !options.paths.empty();
  for (const fs::path& path : options.paths) {
    if (!fs::is_directory(path)) continue;
    only_files = false;
    for (const auto& entry : fs::directory_iterator(path)) corpus.push_back(read_file(entry.path()));
  }
  std::ranges::sort(corpus);  // the order of a directory is no one's choice
  name_artifact(options, options.seed);
  if (only_files) {
    for (const fs::path& path : options.paths) {
      std::printf("%s\n", path.c_str());
      run(read_file(path), options);
    }
    return 0;
  }
  for (const Bytes& input : corpus) run(input, options);
  std::printf("seed %llu, %zu inputs in the corpus\n", static_cast<unsigned long long>(options.seed),
              corpus.size());
  std::fflush(stdout);
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [begin] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::uint64_t done = 0;
  for (; (options.runs == 0 || done < options.runs) && (options.seconds <= 0 || elapsed() < options.seconds);
       ++done) {
    name_artifact(options, options.seed + done);
    run(Mutator(corpus, options.seed + done).next(), options);
  }
  std::printf("%llu executions in %.1f s\n", static_cast<unsigned long long>(done), elapsed());
  return 0;
}
