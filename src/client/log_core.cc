#include "client/log_core.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <stop_token>
#include <utility>

#include "base/access.h"
#include "base/clock.h"
#include "base/files.h"
#include "base/logger.h"
#include "base/random.h"
#include "base/threads.h"
#include "groups/coordinator.h"
#include "shm/futex.h"

namespace ringtail {

using std::memory_order_acquire;
using std::memory_order_relaxed;

namespace {

constexpr std::int64_t kSliceNs = 50'000'000;
constexpr std::string_view kClusterFile = "of-cluster";
// How long a keeper may take to answer before somebody is told so. Recovery of a large log takes seconds.
constexpr std::int64_t kKeeperPatienceNs = 60'000'000'000;
constexpr std::chrono::milliseconds kKeepAgainAfter{1'000};

}  // namespace

Result<std::shared_ptr<LogCore>> LogCore::open(LogOptions options) {
  auto catalog = log::Catalog::open(options.dir, options.create_if_missing);
  if (!catalog) return std::unexpected(catalog.error());
  options.dir = catalog->dir();
  const auto folder = Folder::open(options.dir);
  if (!folder) return std::unexpected(folder.error());
  const std::string& id = catalog->identity().id;
  const auto high = parse_hex(std::string_view(id).substr(0, 16));
  const auto low = parse_hex(std::string_view(id).substr(16));
  if (!high || !low) return fail(Code::corrupt, "the log id in ringtail.toml is not 32 hexadecimal digits");
  auto shm_dir = shm::make_shared_directory(options.shared_memory_dir, id, folder->access());
  if (!shm_dir) return std::unexpected(shm_dir.error());
  log::LogPlace place{{*high, *low}, *shm_dir};
  auto control = shm::Control::open_or_create(*shm_dir, place.log_id, options.dir);
  if (!control) return std::unexpected(control.error());
  auto locks = shm::ByteLockFile::open(*shm_dir / "slots.lock");
  if (!locks) return std::unexpected(locks.error());
  std::shared_ptr<LogCore> core(new LogCore(std::move(options), std::move(*catalog), std::move(place),
                                            std::move(*control), std::move(*locks)));
  if (auto started = core->start_candidate(); !started) return std::unexpected(started.error());
  if (auto ready = core->wait_for_keeper(); !ready) return std::unexpected(ready.error());
  core->is_open_.store(true, memory_order_relaxed);
  return core;
}

LogCore::~LogCore() { stop_keeping(); }

void LogCore::stop_keeping() {
  if (candidate_) candidate_->stop();
}

bool LogCore::is_of_cluster() const {
  std::error_code ignored;
  return std::filesystem::exists(options_.dir / kClusterFile, ignored);
}

Status LogCore::note_cluster(const std::string& cluster) const {
  return write_file_atomically(options_.dir / kClusterFile, cluster + "\n");
}

Status LogCore::start_candidate() {
  const auto path = keeper_lock();
  if (options_.keeper == KeeperMode::none || (options_.keeper == KeeperMode::embedded && is_of_cluster())) {
    const auto held = shm::is_role_held(path);
    if (!held) return std::unexpected(held.error());
    return *held ? Status{} : std::unexpected(log::nobody_keeps(options_.dir));
  }
  // What stands there may be a dead keeper's that had this process's pid, as each has that is the first of its
  // container, and would be taken for the word of this one. holds_role() comes behind the store.
  const auto forget_predecessor = [this] { control().header().keeper_pid.store(0, memory_order_relaxed); };
  auto candidate = shm::RoleCandidate::start(
      path, [this](const std::stop_token& stop) { run_keeper(stop); }, forget_predecessor, kKeepAgainAfter);
  if (!candidate) {
    candidate.error().message += thread_remedy(candidate.error().os_errno);
    return std::unexpected(candidate.error());
  }
  candidate_ = std::move(*candidate);
  return {};
}

// The keeper's role and that of the coordinator of groups go together; the coordinator ends first, since
// what it writes at its end is the keeper's to flush.
void LogCore::run_keeper(const std::stop_token& stop) {
  log::Keeper keeper(
      control(), locks(), catalog(), attachment_.place(),
      {.io = options_.io, .cpu = options_.keeper_cpu, .pin_errno = &pin_errno_, .figures = &keeper_figures_});
  keeper.set_on_progress([this](std::uint32_t index) {
    std::lock_guard lock(keeper_mutex_);
    if (on_progress_) on_progress_(index);
  });
  groups::Coordinator coordinator(attachment_,
                                  {.offsets_retention_ms = catalog().identity().offsets_retention_ms});
  auto groups_thread = start_thread("the coordinator of groups", [&] {
    coordinator.run();
    keeper.stop();
  });
  if (!groups_thread) return note_keeper_failure(groups_thread.error());
  set_keeper(&keeper);
  std::stop_callback on_stop(stop, [&coordinator] { coordinator.stop(); });
  auto ran = keeper.run();
  set_keeper(nullptr);
  keeper.refuse_roles();
  coordinator.stop();
  groups_thread->join();
  if (!ran) note_keeper_failure(ran.error());
}

// Whoever opens the log is told by an error. But of a keeper that follows a dead one nobody is told otherwise, and
// what is appended comes to no disk as long as none succeeds.
void LogCore::note_keeper_failure(const Error& failure) {
  if (is_open_.load(memory_order_relaxed) && std::exchange(failure_told_, failure.message) != failure.message)
    logger().error("the log in {} cannot be kept: {}; trying again every {} s", options_.dir.native(),
                   to_string(failure), kKeepAgainAfter.count() / 1000);
  attachment_.note_keeper_failure(failure);
}

bool LogCore::keeps() const {
  return is_keeper() && control().header().keeper_pid.load(memory_order_acquire) ==
                            static_cast<std::uint32_t>(::getpid());  // SYNC: pairs with become_ready
}

void LogCore::set_keeper(log::Keeper* keeper) {
  std::lock_guard lock(keeper_mutex_);
  keeper_ = keeper;
}

void LogCore::set_on_progress(std::function<void(std::uint32_t)> on_progress) {
  std::lock_guard lock(keeper_mutex_);
  on_progress_ = std::move(on_progress);
}

void LogCore::request_role(std::uint64_t topic_id, PartitionId partition, log::RoleRequest request) {
  std::unique_lock lock(keeper_mutex_);
  if (keeper_ != nullptr) return keeper_->request_role(topic_id, partition, std::move(request));
  lock.unlock();
  if (request.done)
    request.done(fail(Code::no_keeper,
                      fmt::format("this process does not keep the log in {}", options_.dir.string())));
}

// Until some keeper has recovered the log since the boot; and if the role fell to this process, until
// its keeper has, or failed where no other process's succeeds. Another process's failure is not seen: until it ends,
// a log that was kept before in this boot counts as kept.
Status LogCore::wait_for_keeper() {
  shm::ControlHeader& header = control().header();
  const std::int64_t deadline_ns = monotonic_ns() + kKeeperPatienceNs;
  for (;;) {
    const std::uint32_t term =
        header.keeper_term.load(memory_order_acquire);                       // SYNC: pairs with become_ready
    const bool ready = header.keeper_ready.load(memory_order_acquire) != 0;  // SYNC: as above
    const bool is_mine = is_keeper();
    const auto failure =
        attachment_.keeper_failure();  // behind the look at the role: noted before that is given up
    // SYNC: behind the look at the role, which comes behind forgetting the predecessor; pairs with become_ready.
    const std::uint32_t keeper = header.keeper_pid.load(memory_order_acquire);
    const bool is_kept = is_mine ? keeper == static_cast<std::uint32_t>(::getpid()) : !failure;
    if (ready && is_kept) return {};
    if (failure) return std::unexpected(*failure);
    const std::int64_t now = monotonic_ns();
    if (now > deadline_ns)
      return fail(Code::no_keeper, fmt::format("the keeper of {} has not finished recovery in {} s",
                                               options_.dir.string(), kKeeperPatienceNs / 1'000'000'000));
    shm::futex_wait(header.keeper_term, term, now + kSliceNs);
  }
}

Status LogCore::check_mine() const {
  if (is_mine()) return {};
  return fail(Code::closed, "this handle belongs to the parent process; open the log anew after fork");
}

// --- Log -----------------------------------------------------------------------------------------

Result<Log> Log::open(LogOptions options) {
  auto core = LogCore::open(std::move(options));
  if (!core) return std::unexpected(core.error());
  return Log(std::move(*core));
}

const std::filesystem::path& Log::dir() const { return core_->options().dir; }
std::string Log::id() const { return core_->catalog().identity().id; }
bool Log::is_keeper() const { return core_->is_keeper(); }

}  // namespace ringtail
