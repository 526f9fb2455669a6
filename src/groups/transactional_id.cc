#include "groups/transactional_id.h"

#include <fmt/format.h>

#include <limits>

#include "base/parse.h"
#include "groups/membership.h"

namespace ringtail::groups {

using std::memory_order_acquire;
using std::memory_order_relaxed;

std::string encode_terms(const TransactionTerms& terms) {
  return fmt::format("{} {}", terms.timeout_ms, terms.durable ? 1 : 0);
}

Result<TransactionTerms> decode_terms(std::string_view text) {
  const std::size_t space = text.find(' ');
  const auto timeout_ms = parse_integer(text.substr(0, space));
  const std::string_view durable =
      space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
  if (!timeout_ms || *timeout_ms < 1 || *timeout_ms > std::numeric_limits<std::uint32_t>::max() ||
      (durable != "0" && durable != "1"))
    return fail(Code::invalid_argument,
                fmt::format("'{}' is no timeout in ms with 0 or 1 for durable", text));
  return TransactionTerms{static_cast<std::uint32_t>(*timeout_ms), durable == "1"};
}

Result<HeldId> take_id(const log::Attachment& attachment, const shm::OwnedSlot& slot, std::string_view id,
                       const TransactionTerms& terms, std::chrono::nanoseconds patience) {
  if (auto taken =
          ask_coordinator(attachment, slot, shm::GroupRequest::take_id, id, encode_terms(terms), patience);
      !taken)
    return std::unexpected(taken.error());
  return held_id(attachment.control(), slot);
}

Result<HeldId> held_id(const shm::Control& control, const shm::OwnedSlot& slot) {
  const shm::Member& asker = control.member(slot.index());
  const std::uint32_t index = asker.reply.load(memory_order_relaxed);
  if (index >= shm::kMaxTransactionalIds)
    return fail(Code::corrupt, "the coordinator gave an impossible answer");
  const shm::TransactionalId& entry = control.transactional_id(index);
  // SYNC: pairs with Transactions::take_id's last store: whose word it is, the fields below say. If the id goes on
  // behind this load, the word is not what it was any more, so that this holder can begin nothing.
  const std::uint64_t word = entry.word.load(memory_order_acquire);
  if (shm::transaction_state(word) != shm::TransactionState::ready ||
      entry.slot.load(memory_order_relaxed) != slot.index() ||
      entry.slot_word.load(memory_order_relaxed) != slot.word())
    return fail(
        Code::fenced,
        fmt::format("another producer has taken the transactional id '{}' in the meantime; open this one "
                    "again if it is to have it",
                    asker.group_id.load()));
  return HeldId{index, word, entry.producer_id.load(memory_order_relaxed)};
}

}  // namespace ringtail::groups
