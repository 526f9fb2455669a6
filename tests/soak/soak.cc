#include "soak/soak.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <thread>

namespace ringtail::soak {
namespace {

using std::chrono::milliseconds;

constexpr std::uint32_t kKeepers = 2;
constexpr std::uint32_t kPlainProducers = 2;  // ids from 0 on
constexpr std::uint32_t kNumberedProducers = 2;
constexpr std::uint32_t kLoneProducers = 2;
constexpr std::uint32_t kProducers = kPlainProducers + kNumberedProducers + kLoneProducers;
static_assert(kProducers <= kMaxProducers);
constexpr std::uint32_t kSeats = 2;  // of each group
constexpr auto kPatience = std::chrono::seconds(100);

bool is_numbered(std::uint32_t producer) {
  return producer >= kPlainProducers && producer < kPlainProducers + kNumberedProducers;
}
bool is_plain(std::uint32_t producer) { return producer < kPlainProducers; }

}  // namespace

ReaderPage& Soak::Readings::of(std::uint32_t producer) {
  if (is_numbered(producer)) return numbered;
  return is_plain(producer) ? plain : lone;
}

Soak::Soak(const SoakOptions& options) : options_(options), random_(options.seed), scene_(options.disk) {}

std::string Soak::run() {
  cast();
  if (make_log()) start_all();
  while (defect_.empty() && Clock::now() < begin_ + options_.time) {
    resume(false);
    look_for_defects();
    if (defect_.empty() && Clock::now() >= next_fate_) bring_fate();
    tell_progress();
    std::this_thread::sleep_for(milliseconds(5));
  }
  if (defect_.empty()) settle();
  kill_all();
  if (defect_.empty()) audit(false);
  if (defect_.empty()) verify_files();
  if (!defect_.empty()) scene_.keep_files();
  return defect_;
}

// --- The cast ------------------------------------------------------------------------------------

void Soak::add(Kind kind, std::uint32_t number, std::string name, std::function<int()> body,
               const char* error) {
  cast_.push_back({.kind = kind,
                   .number = number,
                   .name = std::move(name),
                   .body = std::move(body),
                   .error = [error] { return std::string(error); },
                   .process = {},
                   .stopped_until = {}});
}

void Soak::cast() {
  Shared& s = *shared_;
  std::size_t note = 0;
  for (std::uint32_t i = 0; i < kKeepers; ++i) {
    const bool is_daemon = i == 0 && !options_.daemon.empty();
    add(
        Kind::keeper, i, is_daemon ? "daemon" : fmt::format("keeper {}", i),
        [this, is_daemon] { return is_daemon ? be_daemon() : crash::keep(scene_); }, s.errors[note++]);
  }
  for (std::uint32_t id = 0; id < kProducers; ++id) {
    const Kind kind = is_plain(id) ? Kind::plain : is_numbered(id) ? Kind::numbered : Kind::lone;
    const auto send = kind == Kind::plain ? send_plain : kind == Kind::numbered ? send_numbered : send_alone;
    add(
        kind, id, fmt::format("producer {}", id),
        [this, &s, id, send] { return send(scene_, id, options_.pace, s.enough, s.producers[id]); },
        s.producers[id].error);
  }
  Readings& r = s.readers;
  const auto add_reader = [&](std::uint32_t number, const char* what, auto topic, ReaderPage& page) {
    add(
        Kind::reader, number, fmt::format("reader of {}", what),
        [this, topic, &page] { return read_on(scene_, topic(), page); }, page.error);
  };
  add_reader(0, "plain", [] { return kPlain; }, r.plain);
  add_reader(1, "numbered", [] { return kNumbered; }, r.numbered);
  add_reader(2, "copies", [&s] { return s.names.copies(); }, r.copies);
  add_reader(3, "lone", [] { return kLone; }, r.lone);
  for (std::uint32_t seat = 0; seat < kSeats; ++seat) {
    char(&copier)[512] = s.errors[note++];
    add(
        Kind::copier, seat, fmt::format("copier {}", seat),
        [this, &s, seat, &copier] { return copy(scene_, s.names, seat, s.copied, copier); }, copier);
    char(&worker)[512] = s.errors[note++];
    add(
        Kind::worker, seat, fmt::format("worker {}", seat),
        [this, &s, &worker] { return work(scene_, s.names, s.workers, worker); }, worker);
  }
}

// In a process of its own: this one forks, and must not have the log open.
bool Soak::make_log() {
  Process maker("maker", [this] {
    auto log = scene_.open(KeeperMode::embedded);
    if (!log) return 2;
    return make_topics(*log, shared_->names) ? 0 : 2;
  });
  if (maker.wait() == 0) return true;
  fail("the topics cannot be made");
  return false;
}

// The program itself takes this process's place. Returns only when it cannot.
int Soak::be_daemon() const {
  const auto file = scene_.dir() / "ringtaild.toml";
  std::ofstream(file) << fmt::format(
      "[log]\nshared_memory_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[logging]\nfile = \"{}\"\n",
      scene_.shm().string(), (scene_.dir() / "daemon.log").string());
  ::execl(options_.daemon.c_str(), options_.daemon.c_str(), "--config", file.c_str(), "--dir",
          scene_.dir().c_str(), nullptr);
  return 3;
}

void Soak::start(Actor& actor) {
  actor.stopped_until.reset();
  actor.process = Process(actor.name, actor.body);
}
void Soak::start_all() {
  for (Actor& actor : cast_) start(actor);
}

void Soak::note_death(const Actor& actor) {
  ++counts_.killed;
  if (actor.kind != Kind::plain && actor.kind != Kind::lone) return;
  truth_.note_death(actor.number, shared_->producers[actor.number]);
  counts_.doubts = truth_.doubts();
}
void Soak::kill(Actor& actor) {
  actor.process.kill();
  note_death(actor);
}
// At once: nobody sees another die first.
void Soak::kill_all() {
  for (const Actor& actor : cast_) actor.process.signal(SIGKILL);
  for (Actor& actor : cast_) {
    if (!actor.process.is_running()) continue;
    actor.process.wait();
    note_death(actor);
  }
}

void Soak::resume(bool all) {
  for (Actor& actor : cast_) {
    if (!actor.stopped_until || (!all && Clock::now() < *actor.stopped_until)) continue;
    actor.process.signal(SIGCONT);
    actor.stopped_until.reset();
  }
}

// --- Fates ---------------------------------------------------------------------------------------

void Soak::bring_fate() {
  next_fate_ = Clock::now() + milliseconds(20 + random(600));
  const std::uint64_t luck = random(100);
  Actor& actor = cast_[random(cast_.size())];
  if (luck < 62) {
    kill(actor);
    start(actor);
  } else if (luck < 84) {
    if (actor.stopped_until) return;
    actor.process.signal(SIGSTOP);
    // Some for longer than a member may be silent, a transaction last, or a claim be open.
    actor.stopped_until = Clock::now() + milliseconds(1 + random(random(4) == 0 ? 3'000 : 200));
    ++counts_.stopped;
  } else if (luck < 92) {
    for (Actor& each : cast_)
      if (each.kind == actor.kind) kill(each);
    for (Actor& each : cast_)
      if (!each.process.is_running()) start(each);
  } else {
    kill_everybody();
  }
}

void Soak::kill_everybody() {
  kill_all();
  ++counts_.all_killed;
  const bool loses_memory = random(3) == 0;
  if (loses_memory) {
    ++counts_.memory_lost;
    std::filesystem::remove_all(scene_.shm_folder());
  }
  // Without an audit, those who come next recover the log.
  if (loses_memory || random(2) == 0) audit(loses_memory);
  if (defect_.empty() && loses_memory && !make_log()) return;
  if (defect_.empty()) start_all();
}

// --- The account ---------------------------------------------------------------------------------

void Soak::fail(const std::string& defect) {
  if (defect_.empty()) defect_ = defect;
}

void Soak::look_for_defects() {
  for (Actor& actor : cast_) {
    if (actor.stopped_until) continue;
    const int code = actor.process.poll();
    if (!actor.process.is_running())
      fail(fmt::format("the {} has ended with {}: {}", actor.name, code, actor.error()));
  }
  check_gaps(shared_->readers, checked_gaps_);
  const auto now = Clock::now();
  if (const std::uint64_t sum = progress(); sum != last_progress_) {
    last_progress_ = sum;
    moved_ = now;
  }
  if (now < moved_ + kPatience) return;
  std::string doing = "nothing moves\n";
  for (const Actor& actor : cast_) doing += actor.name + "\n" + test::describe_process(actor.process.pid());
  fail(doing);
}

void Soak::check_gaps(ReaderPage& page, std::uint32_t& checked) {
  for (const std::uint32_t count = page.gap_count.load(); checked < count; ++checked) {
    const Gap& gap = page.gaps[checked];
    if (!truth_.is_in_doubt(gap.producer, gap.from, gap.to))
      fail(fmt::format("producer {}: numbers {} to {} were sent and are not there", gap.producer, gap.from,
                       gap.to - 1));
  }
}

void Soak::check_gaps(Readings& readings, std::array<std::uint32_t, 2>& checked) {
  check_gaps(readings.plain, checked[0]);
  check_gaps(readings.lone, checked[1]);
}

// Reads the whole log, while nobody else has it.
void Soak::audit(bool lost_memory) {
  ++counts_.audits;
  Shared& s = *shared_;
  Readings& a = s.audits;
  const std::array<std::pair<ReaderPage*, std::string>, 4> topics{
      {{&a.plain, kPlain}, {&a.lone, kLone}, {&a.numbered, kNumbered}, {&a.copies, s.names.copies()}}};
  for (const auto& [page, topic] : topics) page->clear();
  char(&error)[512] = s.errors.back();
  Process auditor("auditor", [&] {
    auto log = scene_.open(KeeperMode::embedded);
    if (!log) return crash::give_up(error, to_string(log.error()));
    for (const auto& [page, topic] : topics)
      if (const std::string wrong = read_whole(*log, topic, *page); !wrong.empty())
        return crash::give_up(error, wrong);
    return 0;
  });
  if (const int code = auditor.wait(); code != 0)
    return fail(fmt::format("the auditor has ended with {}: {}", code, error));
  compare(lost_memory);
  if (lost_memory && defect_.empty()) go_back_to_audit();
  moved_ = Clock::now();
}

void Soak::compare(bool lost_memory) {
  Shared& s = *shared_;
  std::array<std::uint32_t, 2> checked{};
  check_gaps(s.audits, checked);
  for (std::uint32_t id = 0; id < kProducers; ++id) {
    const ProducerPage& page = s.producers[id];
    const std::uint64_t next = s.audits.of(id).next[id].load();
    const std::uint64_t read = s.readers.of(id).next[id].load();
    const std::uint64_t promised = lost_memory ? page.durable.load() : page.returned.load();
    if (next > page.attempted.load())
      fail(fmt::format("producer {}: number {} was never sent", id, next - 1));
    const bool is_doubtful = !is_numbered(id) && !lost_memory && truth_.is_in_doubt(id, next, promised);
    if (next < promised && !is_doubtful)
      fail(fmt::format("producer {}: {} numbers were promised{}, {} are there", id, promised,
                       lost_memory ? " beyond the loss of memory" : "", next));
    if (!lost_memory && read > next)
      fail(fmt::format("producer {}: {} numbers were read, {} are there", id, read, next));
    const std::uint64_t copied = s.audits.copies.next[id].load();
    if (!lost_memory && is_numbered(id) && copied > next)
      fail(fmt::format("producer {}: {} numbers were copied, {} are there", id, copied, next));
  }
}

// What is behind the end that is left was never there. What was made of it, copies and positions, is left behind.
void Soak::go_back_to_audit() {
  Shared& s = *shared_;
  for (std::uint32_t id = 0; id < kProducers; ++id) {
    ProducerPage& page = s.producers[id];
    const std::uint64_t next = s.audits.of(id).next[id].load();
    records_before_ += page.returned.load() - std::min(next, page.returned.load());
    for (auto* mark : {&page.attempted, &page.returned, &page.durable}) mark->store(next);
    truth_.forget(id, next);
  }
  Readings& r = s.readers;
  Readings& a = s.audits;
  for (const auto& [page, audit] :
       {std::pair{&r.plain, &a.plain}, std::pair{&r.lone, &a.lone}, std::pair{&r.numbered, &a.numbered}}) {
    for (std::uint32_t p = 0; p < kPartitions; ++p) page->next_offset[p].store(audit->next_offset[p].load());
    for (std::uint32_t id = 0; id < kMaxProducers; ++id) page->next[id].store(audit->next[id].load());
    page->gap_count.store(0);
  }
  checked_gaps_ = {};
  ++s.names.life;
  r.copies.clear();
  for (std::uint32_t p = 0; p < kPartitions; ++p) {
    s.workers.acknowledged[p].store(0);
    s.workers.processed[p].store(0);
  }
}

// --- The end -------------------------------------------------------------------------------------

bool Soak::has_all_been_read() const {
  Readings& r = shared_->readers;
  for (std::uint32_t id = 0; id < kProducers; ++id) {
    const ProducerPage& page = shared_->producers[id];
    if (!page.done.load()) return false;
    const std::uint64_t sent = page.returned.load();
    const std::uint64_t read = r.of(id).next[id].load();
    // Who died last may have left a number in doubt, and have been told to send no more.
    if (is_numbered(id)) {
      if (read < sent || read > page.attempted.load() || r.copies.next[id].load() != read) return false;
    } else if (read != sent && !truth_.is_in_doubt(id, read, sent)) {
      return false;
    }
  }
  return true;
}

// Nobody dies any more: all that is sent comes to be read and copied.
void Soak::settle() {
  resume(true);
  for (ProducerPage& page : shared_->producers) page.done.store(false);
  shared_->enough.store(true);
  moved_ = Clock::now();
  while (defect_.empty() && !has_all_been_read()) {
    look_for_defects();
    tell_progress();
    std::this_thread::sleep_for(milliseconds(5));
  }
}

void Soak::verify_files() {
  for (const auto& topic : std::filesystem::directory_iterator(scene_.dir() / "topics"))
    for (const auto& partition : std::filesystem::directory_iterator(topic)) {
      if (!partition.is_directory()) continue;
      auto verified = log::verify_partition(partition.path());
      if (!verified) return fail(to_string(verified.error()));
      for (const auto& fault : verified->faults)
        fail(fmt::format("{} at {}: {}", fault.path.string(), fault.position.value(), fault.message));
    }
}

// --- What is said meanwhile ----------------------------------------------------------------------

std::uint64_t Soak::records() const {
  std::uint64_t sum = records_before_;
  for (const ProducerPage& page : shared_->producers) sum += page.returned.load();
  return sum;
}
std::uint64_t Soak::lone_records() const {
  std::uint64_t sum = 0;
  for (std::uint32_t id = 0; id < kProducers; ++id)
    if (!is_plain(id) && !is_numbered(id)) sum += shared_->producers[id].returned.load();
  return sum;
}
std::uint64_t Soak::progress() const {
  const Readings& r = shared_->readers;
  return records() + r.plain.records.load() + r.lone.records.load() + r.numbered.records.load() +
         r.copies.records.load() + shared_->workers.records.load();
}

void Soak::tell_progress() {
  const auto now = Clock::now();
  if (now < next_line_) return;
  next_line_ = now + std::chrono::seconds(5);
  const Shared& s = *shared_;
  fmt::print(
      stderr,
      "{:7.1f} s: {} sent, {} copied, {} worked on; {} killed, {} stopped, {} times all, {} with memory, "
      "{} audits, {} doubts\n",
      std::chrono::duration<double>(now - begin_).count(), records(), s.copied.load(),
      s.workers.records.load(), counts_.killed, counts_.stopped, counts_.all_killed, counts_.memory_lost,
      counts_.audits, counts_.doubts);
}

}  // namespace ringtail::soak
