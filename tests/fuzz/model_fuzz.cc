// A partition and all that its users do, in any order, against a model in memory: offsets are those that the model
// expects, readers get each record that was committed, once, in order, and unchanged; no death of a keeper or producer
// loses one, and a crash of the host none that was durable.
#include <array>
#include <map>
#include <optional>
#include <string>
#include <thread>

#include "fuzz/harness/fresh_partition.h"

namespace ringtail::log {
namespace {

using fuzz::demand;

class ModelFuzz final : public FreshPartition {
 public:
  void run(fuzz::Input input) {
    input_ = input;
    begin_anew();
    config_.storage = input_.one_of(4) ? Storage::memory : Storage::disk;
    config_.timestamp_type = input_.one_of(8) ? TimestampType::log_append_time : TimestampType::create_time;
    config_.on_full = OnFull::fail;
    config_.segment_bytes = 256 << 10;
    config_.reader_pin_ms = 1;
    open_keeper();
    demand(!failed(), "a fresh partition opens");
    for (Hand& hand : hands_) hand.producer = new_producer(std::chrono::milliseconds(0));
    records_.clear();
    next_ = made_ = start_ = 0;
    late_ns_ = 0;
    for (View& view : views_) open_view(view);
    for (int steps = 0; steps < kMostSteps && !input_.empty(); ++steps) step();
    read_all();
    for (View& view : views_) view.reader.reset();
  }

 private:
  static constexpr int kMostSteps = 300;

  // A producer, and the claim it holds.
  struct Hand {
    std::unique_ptr<Producer> producer;
    std::optional<Appender::Open> claim;
    std::string value;  // of the claim
  };
  struct View {
    std::unique_ptr<PartitionReader> reader;
    std::uint64_t next = 0;  // no record before it is to come
  };

  void TestBody() override {}
  std::uint64_t pick(std::uint64_t n) { return input_.pick(n); }
  Hand& hand() { return hands_[pick(hands_.size())]; }
  View& view() { return views_[pick(views_.size())]; }

  void step() {
    switch (pick(20)) {
      case 0:
      case 1:
      case 2: append(); break;
      case 3: append_batch(); break;
      case 4: append_many(); break;
      case 5:
      case 6: claim_or_end(); break;
      case 7:
      case 8:
      case 9: poll(view(), 1 + pick(40)); break;
      case 10: seek(); break;
      case 11: seek_to_time(); break;
      case 12:
      case 13:
      case 14: turn_often(); break;
      case 15: make_durable(); break;
      case 16: replace_producer(); break;
      case 17: change_keepers(); break;
      case 18: change_retention(); break;
      default: pick(4) == 0 ? crash_host() : reopen_view();
    }
    demand(!failed(), "nothing here damages a partition");
    note_start();
  }

  // --- Appending ---------------------------------------------------------------------------------

  std::string next_value() {
    const std::uint64_t bytes = pick(6) == 0 ? pick(kTestTerm / 8 - 20) : pick(120);
    std::string value = std::to_string(++made_) + ' ';
    return value.append(bytes, static_cast<char>('a' + made_ % 26));
  }
  // The offset that comes next is known, for all claims are made here.
  std::uint64_t take(Offset offset, std::uint64_t count) {
    demand(offset.value() == next_, "offsets have no gap, and none comes twice");
    next_ += count;
    return offset.value();
  }
  void append() {
    Hand& by = hand();
    if (by.claim) return;
    const std::string value = next_value();
    const auto sent = (*by.producer)->append({.value = value, .timestamp_ns = time_now()});
    if (!sent) return demand(is_full(sent.error()), "an append fails only where there is no room");
    records_[take(sent->offset, 1)] = {value, sent->timestamp_ns};
  }
  void append_batch() {
    Hand& by = hand();
    if (by.claim) return;
    const std::uint64_t count = 1 + pick(30);
    std::vector<std::string> values;
    for (std::uint64_t i = 0; i < count; ++i) values.push_back(next_value().substr(0, 200));
    std::vector<ProducerRecord> batch;
    for (const std::string& value : values) batch.push_back({.value = value, .timestamp_ns = time_now()});
    const auto sent = (*by.producer)->append_batch(batch);
    if (!sent) return demand(is_full(sent.error()), "a batch fails only where there is no room");
    const std::uint64_t first = take(Offset(sent->offset.value() - (count - 1)), count);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::int64_t time = append_time() ? sent->timestamp_ns : *batch[i].timestamp_ns;
      records_[first + i] = {values[i], time};
    }
  }
  void append_many() {
    for (std::uint64_t n = 8; n > 0; --n) append();
  }
  static bool is_full(SendError error) {
    return error == SendError::would_block || error == SendError::timed_out;
  }
  bool append_time() const { return config_.timestamp_type == TimestampType::log_append_time; }
  std::int64_t time_now() { return 1'000 + static_cast<std::int64_t>(made_); }

  void claim_or_end() {
    Hand& by = hand();
    if (!by.claim) {
      by.value = next_value();
      auto claim = (*by.producer)->claim({}, by.value.size());
      if (!claim) return demand(is_full(claim.error()), "a claim fails only where there is no room");
      take(claim->metadata.offset, 1);
      by.claim = *claim;
      return;
    }
    const Offset offset = by.claim->metadata.offset;
    if (pick(3) == 0) {
      (*by.producer)->abort(*by.claim);
    } else {
      std::memcpy(by.claim->value, by.value.data(), by.value.size());
      const auto sent = (*by.producer)->commit(*by.claim);
      demand(sent && sent->offset == offset, "a claim that is committed is a record");
      records_[offset.value()] = {by.value, sent->timestamp_ns};
    }
    by.claim.reset();
  }
  // With a claim under way it is one that dies.
  void replace_producer() {
    Hand& by = hand();
    by = {};
    by.producer = new_producer(std::chrono::milliseconds(0));
  }

  // --- Reading -----------------------------------------------------------------------------------

  void open_view(View& view) {
    view.reader = new_reader();
    view.next = view.reader->offset().value();
  }
  void reopen_view() {
    View& which = view();
    which.reader.reset();
    open_view(which);
  }
  // The first offset from there on that is claimed and not committed. A reader that has sought beyond an open claim is
  // not held up by it.
  std::uint64_t first_open(std::uint64_t from = 0) const {
    std::uint64_t first = next_;
    for (const Hand& hand : hands_) {
      if (!hand.claim) continue;
      const std::uint64_t offset = hand.claim->metadata.offset.value();
      if (offset >= from) first = std::min(first, offset);
    }
    return first;
  }
  // Returns how many records came.
  std::size_t poll(View& view, std::size_t most) {
    std::array<Record, 40> records;
    const auto polled = view.reader->poll(std::span(records).first(std::min(most, records.size())));
    if (!polled) {
      demand(polled.error().code == Code::offset_out_of_range && view.next < start_now(),
             "reading fails only where retention has deleted");
      open_view(view);
      return 0;
    }
    for (const Record& record : std::span(records).first(*polled)) {
      const auto expected = records_.lower_bound(view.next);
      demand(expected != records_.end(), "nothing comes that was not committed");
      demand(record.offset.value() == expected->first, "records come in order, each once");
      demand(record.value == expected->second.value, "a record is as it was appended");
      demand(record.timestamp_ns == expected->second.timestamp_ns, "with its time");
      demand(record.offset.value() < first_open(view.next), "no reader passes an open claim");
      view.next = record.offset.value() + 1;
    }
    demand(view.reader->missed() == 0, "no record is missed");
    return *polled;
  }
  void seek() {
    View& which = view();
    if (!is_end_known()) return;
    const std::uint64_t to = pick(next_ + 2);
    const auto sought = which.reader->seek(Offset(to));
    if (to >= start_now() && to <= next_) {
      // A memory topic's ring may go on at any moment; but here nobody turns the keeper meanwhile.
      demand(sought.has_value(), "every offset of the log can be sought");
      which.next = to;
    } else {
      demand(!sought && sought.error().code == Code::offset_out_of_range,
             "an offset outside of the log cannot");
    }
  }
  // Only where the answer is known: times rise with offsets, and nothing is under way.
  void seek_to_time() {
    View& which = view();
    if (!is_end_known() || first_open() != next_ || append_time()) return;
    const auto time = static_cast<std::int64_t>(900 + pick(made_ + 200));
    demand(which.reader->seek_to_time(time).has_value(), "every time can be sought");
    which.next = which.reader->offset().value();
    const std::uint64_t start = start_now();
    for (auto it = records_.lower_bound(start); it != records_.end() && it->first < which.next; ++it)
      demand(it->second.timestamp_ns < time, "no record of that time or later lies before");
  }
  bool is_end_known() {
    return Ring::open_header(ring_path(dir_.path(), ref_.topic, ref_.partition))->exact_end().has_value();
  }

  // --- The keeper --------------------------------------------------------------------------------

  // One round, at a time that may be ahead of the clock.
  void turn() {
    reap_and_dispatch(*backend_, false);
    workshop_->deliver();
    cleaner_->deliver();
    for (const std::uint32_t slot : monitor_.find_deaths()) keeper_->on_slot_dead(slot);
    keeper_->tick(monotonic_ns() + late_ns_);
  }
  void turn_often() {
    for (std::uint64_t n = 1 + pick(8); n > 0; --n) turn();
    if (pick(3) != 0) return;
    finish_jobs();
    turn();
  }
  void make_durable() {
    if (config_.storage == Storage::memory) return;
    const std::uint64_t wanted = first_open();
    for (int turns = 0; entry().durable_offset.load() < wanted && !failed(); ++turns) {
      demand(turns < 100'000, "what is committed becomes durable");
      turn();
      if (turns > 10) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  // It dies, or ends in good order; another one takes over.
  void change_keepers() {
    if (pick(2) == 0) keeper_->flush_blocking();
    replace_keeper();
  }
  void change_retention() {
    config_.retention_bytes = pick(2) == 0 ? -1 : static_cast<std::int64_t>(pick(1 << 20));
    keeper_->update_config(config_);
    // So much later that it looks for what is to be deleted.
    late_ns_ += 2'000'000'000;
    turn();
  }
  std::uint64_t start_now() { return entry().log_start_offset.load(); }
  void note_start() {
    const std::uint64_t start = start_now();
    demand(start >= start_, "the log's start does not move back");
    demand(start <= next_, "nor beyond the log's end");
    start_ = start;
  }

  // All that was in memory is gone, and so is everybody.
  void crash_host() {
    if (config_.storage == Storage::memory) return;
    const std::uint64_t durable = entry().durable_offset.load();
    for (Hand& hand : hands_) hand = {};
    for (View& view : views_) view.reader.reset();
    kill_keeper();
    static_cast<void>(monitor_.find_deaths());
    for (std::uint32_t slot = 0; slot < shm::kMaxSlots; ++slot) monitor_.release_dead(slot);
    finish_jobs();
    remove_rings();
    shm::Partition& e = entry();
    for (auto* word : {&e.ring_generation, &e.durable_position, &e.durable_offset, &e.mark_turn})
      word->store(0);
    e.state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
    open_keeper();
    demand(!failed(), "a log opens after a crash");
    const std::uint64_t end = entry().durable_offset.load();
    demand(end >= durable, "what was durable is there after a crash");
    demand(end <= next_, "and nothing that was never appended");
    records_.erase(records_.lower_bound(end), records_.end());
    next_ = end;
    for (Hand& hand : hands_) hand.producer = new_producer(std::chrono::milliseconds(0));
    for (View& view : views_) open_view(view);
  }

  // Whatever was begun comes to its end; then every view gets the rest.
  void read_all() {
    for (Hand& hand : hands_) hand = {};
    for (View& view : views_) {
      for (int idle = 0; !is_read(view); idle = poll(view, 40) > 0 ? 0 : idle + 1) {
        demand(idle < 100'000, "every record that was committed comes");
        if (idle > 0) turn();
        if (idle > 20) std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
    demand(!failed(), "nothing here damages a partition");
  }
  bool is_read(const View& view) const { return records_.lower_bound(view.next) == records_.end(); }

  struct Sent {
    std::string value;
    std::int64_t timestamp_ns = 0;
  };

  fuzz::Input input_{nullptr, 0};
  std::array<Hand, 3> hands_;
  std::array<View, 2> views_;
  std::map<std::uint64_t, Sent> records_;  // that were committed, by their offsets
  std::uint64_t next_ = 0;                 // the next offset
  std::uint64_t made_ = 0;                 // values
  std::uint64_t start_ = 0;
  std::int64_t late_ns_ = 0;
};

}  // namespace
}  // namespace ringtail::log

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ringtail::fuzz::fail_at_once();
  static ringtail::log::ModelFuzz target;
  target.run({data, size});
  return 0;
}
