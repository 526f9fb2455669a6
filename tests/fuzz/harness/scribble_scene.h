// A partition at work, whose shared memory another process writes over: appenders, readers and a keeper take turns,
// each step as the input says. Every step must end, and nobody may leave his memory. Errors are welcome.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fuzz/harness/fresh_partition.h"

namespace ringtail::log {

class ScribbleScene : public FreshPartition {
 public:
  void run(fuzz::Input input) {
    input_ = input;
    begin_anew();
    config_.storage = input_.one_of(3) ? Storage::disk : Storage::memory;
    config_.timestamp_type = input_.one_of(4) ? TimestampType::log_append_time : TimestampType::create_time;
    config_.on_full = input_.one_of(4) ? OnFull::overwrite : OnFull::fail;
    if (config_.storage == Storage::disk) config_.on_full = OnFull::fail;
    config_.reader_pin_ms = 1;
    open();
    for (int steps = 0; steps < kMostSteps && !input_.empty(); ++steps) step();
    leave();
  }

 protected:
  // One word of the memory that is written over.
  virtual shm::Shared<std::uint64_t>& pick_word() = 0;

  std::uint64_t pick(std::uint64_t n) { return input_.pick(n); }
  Ring& ring() { return ring_; }

 private:
  static constexpr int kMostSteps = 150;

  // A producer, and the claim it holds.
  struct Hand {
    std::unique_ptr<Producer> producer;
    std::optional<Appender::Open> claim;
  };

  void TestBody() override {}

  void open() {
    open_keeper();
    fuzz::demand(!failed(), "a fresh partition opens");
    ring_ = open_ring();
    for (Hand& hand : hands_) hand.producer = new_producer(std::chrono::milliseconds(0));
    replace_reader();
    replace_shipper();
  }
  void leave() {
    for (Hand& hand : hands_) let_go(hand);
    reader_.reset();
    shipper_.reset();
    undo_.clear();
  }

  void step() {
    switch (pick(18)) {
      case 0:
      case 1: append(); break;
      case 2: append_batch(); break;
      case 3: claim_or_end(); break;
      case 4:
      case 5: poll(); break;
      case 6: ship(); break;
      case 7: seek(); break;
      case 8:
      case 9: turn_keeper(); break;
      case 10: replace_producer(); break;
      case 11: pick(2) == 0 ? replace_reader() : replace_shipper(); break;
      case 12: give_up(); break;
      case 13: change_keepers(); break;
      case 14: look_anew(); break;
      case 15: undo(); break;
      default: scribble();
    }
  }

  // --- Appenders ---------------------------------------------------------------------------------

  Hand& hand() { return hands_[pick(hands_.size())]; }
  std::string_view value() {
    static const std::string text(kTestTerm, 'v');
    return std::string_view(text).substr(0, pick(4) == 0 ? pick(kTestTerm / 8) : pick(200));
  }
  std::string_view key() { return pick(2) == 0 ? std::string_view("key") : std::string_view(); }

  void append() {
    Hand& by = hand();
    if (by.claim) return;
    static_cast<void>((*by.producer)->append({.key = key(), .value = value()}));
    static_cast<void>((*by.producer)->wait_durable({.end = Position(pick(1 << 20))}));
  }
  void append_batch() {
    Hand& by = hand();
    if (by.claim) return;
    const std::vector<ProducerRecord> batch(1 + pick(200), ProducerRecord{.value = value().substr(0, 30)});
    static_cast<void>((*by.producer)->append_batch(batch));
  }
  void claim_or_end() {
    Hand& by = hand();
    if (by.claim) {
      std::memset(by.claim->value, 'c', by.claim->length - format::kFrameHeaderBytes);
      if (pick(3) == 0)
        (*by.producer)->abort(*by.claim);
      else
        static_cast<void>((*by.producer)->commit(*by.claim));
      by.claim.reset();
    } else if (auto claim = (*by.producer)->claim({}, value().size())) {
      by.claim = *claim;
    }
  }
  // A claim under way is left to the keeper.
  static void let_go(Hand& hand) {
    hand.claim.reset();
    hand.producer.reset();
  }
  void replace_producer() {
    Hand& by = hand();
    let_go(by);
    auto producer = std::make_unique<Producer>();
    auto slot = shm::OwnedSlot::acquire(control_, locks_, shm::SlotRole::producer);
    if (slot) {
      producer->slot = std::move(*slot);
      auto appender = Appender::open(ref_, producer->slot, producer->clock, std::chrono::milliseconds(0));
      if (appender) producer->appender.emplace(std::move(*appender));
    }
    if (producer->appender) {
      by.producer = std::move(producer);
      return;
    }
    // Nothing can be had of this partition any more.
    leave();
    const TopicConfig config = config_;
    begin_anew();
    config_ = config;
    open();
  }

  // --- Readers -----------------------------------------------------------------------------------

  static void use(std::span<const Record> records) {
    for (const Record& record : records) {
      fuzz::touch(record.key);
      fuzz::touch(record.value);
      for (const Header& header : record.headers) fuzz::touch(header.value);
    }
  }
  void poll() {
    if (!reader_) return;
    std::array<Record, 16> records;
    static_cast<void>(reader_->has_data());
    static_cast<void>(reader_->next_timestamp());
    const auto polled = reader_->poll(records);
    if (polled) use(std::span(records).first(*polled));
  }
  void ship() {
    if (!shipper_) return;
    const auto frames = shipper_->poll_frames(1 + pick(20'000), pick(2) == 0);
    if (!frames) return;
    fuzz::touch({reinterpret_cast<const char*>(frames->bytes.data()), frames->bytes.size()});
    fuzz::demand(frames->bytes.size() <= kTestTerm * 4, "frames lie in a ring or in a buffer");
    static_cast<void>(shipper_->is_near_end());
    static_cast<void>(shipper_->claimed_end());
  }
  // Otherwise whoever asks for the log's end waits for a second until somebody says where it is.
  bool is_end_known() {
    const auto current = Ring::open_header(ring_path(dir_.path(), ref_.topic, ref_.partition));
    return current && current->exact_end().has_value();
  }
  void seek() {
    if (!reader_ || !is_end_known()) return;
    if (pick(3) == 0)
      static_cast<void>(reader_->seek_to_time(static_cast<std::int64_t>(input_.take<std::uint64_t>() >> 1)));
    else
      static_cast<void>(reader_->seek(Offset(pick(2'000))));
  }
  void replace_reader() {
    reader_.reset();
    if (!is_end_known()) return;
    auto reader = PartitionReader::open(ref_, 400, 64 << 10);
    if (reader) reader_ = std::move(*reader);
  }
  void replace_shipper() {
    shipper_.reset();
    std::optional<LogPoint> from;
    if (pick(2) == 0) from = LogPoint{Position(pick(1 << 20)), Offset(pick(2'000))};
    auto reader = PartitionReader::open_for_shipping(ref_, 401, 64 << 10, from);
    if (reader) shipper_ = std::move(*reader);
  }

  // --- The keeper --------------------------------------------------------------------------------

  void turn_keeper() {
    turn();
    if (pick(2) != 0) return;
    finish_jobs();
    turn();
  }
  void change_keepers() {
    // It may wait for half a second for claims in an earlier ring.
    if (pick(64) == 0) keeper_->flush_blocking();
    replace_keeper();
  }
  void give_up() {
    const Hand& whom = hand();
    if (!whom.claim) return;
    const std::uint32_t slot = whom.producer->slot.index();
    keeper_->on_slot_stuck(slot, control_.slot(slot).op.load());
  }

  // --- Others ------------------------------------------------------------------------------------

  // Another process attaches. Its mapping is where the next words are written over.
  void look_anew() {
    if (auto ring = Ring::open(ring_path(dir_.path(), ref_.topic, ref_.partition), false)) {
      undo_.clear();
      ring_ = std::move(*ring);
      static_cast<void>(ring_.claimed_end());
      static_cast<void>(ring_.frame_limit());
    }
    static_cast<void>(shm::Control::open_or_create(dir_.path(), kTestLogId, dir_.path()));
  }
  std::uint64_t pick_value(std::uint64_t now) {
    switch (pick(10)) {
      case 0: return 0;
      case 1: return ~std::uint64_t{0};
      case 2: return now + 8 * pick(32);
      case 3: return now - 8 * pick(32);
      case 4: return now ^ std::uint64_t{1} << pick(64);
      case 5:
        return format::committed_word(static_cast<std::uint32_t>(pick(1 << 17)),
                                      static_cast<format::FrameType>(pick(8)),
                                      static_cast<std::uint8_t>(pick(64)));
      case 6: return format::aborted_word(static_cast<std::uint32_t>(pick(1 << 14)) * 8);
      case 7: return format::claimed_word(static_cast<std::uint32_t>(pick(1 << 17)) + 1);
      case 8: return make_tail(pick(512), pick(1 << 12), pick(1 << 18)) | (pick(8) == 0 ? kFence : 0);
      default: return input_.take<std::uint64_t>();
    }
  }
  void scribble() {
    shm::Shared<std::uint64_t>& word = pick_word();
    const std::uint64_t now = word.load();
    undo_.emplace_back(&word, now);
    word.store(pick_value(now));
  }
  void undo() {
    if (undo_.empty()) return;
    undo_.back().first->store(undo_.back().second);
    undo_.pop_back();
  }

  fuzz::Input input_{nullptr, 0};
  std::array<Hand, 2> hands_;
  std::unique_ptr<PartitionReader> reader_;
  std::unique_ptr<PartitionReader> shipper_;
  Ring ring_;
  std::vector<std::pair<shm::Shared<std::uint64_t>*, std::uint64_t>> undo_;
};

}  // namespace ringtail::log
