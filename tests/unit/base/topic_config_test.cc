#include "base/topic_config.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ringtail {
namespace {

void expect_refused(const TopicConfigs& configs, std::initializer_list<std::string_view> parts) {
  const auto config = parse_topic_config(configs);
  ASSERT_FALSE(config) << configs.begin()->first;
  EXPECT_EQ(config.error().code, Code::invalid_argument);
  for (const std::string_view part : parts) {
    EXPECT_NE(config.error().message.find(part), std::string::npos)
        << "no '" << part << "' in: " << config.error().message;
  }
}

TEST(TopicConfig, WithoutOverridesItIsTheDefault) { EXPECT_EQ(parse_topic_config({}), TopicConfig{}); }

TEST(TopicConfig, FormatAndParseAreInverse) {
  TopicConfig config;
  config.retention_ms = -1;
  config.retention_bytes = 1;
  config.segment_bytes = 32 << 20;
  config.segment_ms = 2;
  config.max_message_bytes = 3;
  config.min_insync_replicas = 4;
  config.flush_interval_ms = 5;
  config.index_interval_bytes = 6 << 10;
  config.term_bytes = 1 << 20;
  config.ring_terms = 8;
  config.claim_timeout_ms = 90;
  config.reader_pin_ms = 10;
  config.timestamp_type = TimestampType::log_append_time;
  config.storage = Storage::memory;
  config.on_full = OnFull::overwrite;
  config.min_cleanable_dirty_billionths = 125'000'000;
  config.min_compaction_lag_ms = 11;
  config.max_compaction_lag_ms = 12;
  config.delete_retention_ms = 13;
  const TopicConfigs texts = format_topic_config(config);
  EXPECT_EQ(texts.size(), topic_config_reference().size());
  EXPECT_EQ(parse_topic_config(texts), config);
  EXPECT_EQ(texts.at("on.full"), "overwrite");
  EXPECT_EQ(texts.at("message.timestamp.type"), "LogAppendTime");
  EXPECT_EQ(texts.at("retention.ms"), "-1");
  EXPECT_EQ(texts.at("min.cleanable.dirty.ratio"), "0.125");
}

TEST(TopicConfig, UnitsAreAccepted) {
  const auto config = parse_topic_config(
      {{"retention.ms", "2h"}, {"segment.bytes", "64MiB"}, {"term.bytes", "16M"}, {"flush.ms", "20"}});
  ASSERT_TRUE(config);
  EXPECT_EQ(config->retention_ms, 7'200'000);
  EXPECT_EQ(config->segment_bytes, 64 << 20);
  EXPECT_EQ(config->term_bytes, 16 << 20);
  EXPECT_EQ(config->flush_interval_ms, 20);
  EXPECT_EQ(config->ring_bytes(), 64u << 20);
}

TEST(TopicConfig, EveryRangeHoldsAtBothEnds) {
  // The least and the largest value of every number, and the values beside them.
  for (const ConfigReference& reference : topic_config_reference()) {
    const std::string values(reference.values);
    const auto separator = values.find(" to ");
    if (separator == std::string::npos) continue;
    const std::string name(reference.name);
    const std::int64_t min = std::stoll(values.substr(0, separator));
    const std::string max_text = values.substr(separator + 4);
    expect_refused({{name, std::to_string(min - 1)}}, {name});
    if (max_text != "9223372036854775807") {
      expect_refused({{name, std::to_string(std::stoll(max_text) + 1)}}, {name});
    } else {
      expect_refused({{name, "9223372036854775808"}}, {name, "9223372036854775808"});
    }
    EXPECT_TRUE(parse_topic_config({{name, std::to_string(min)}})) << name;
    TopicConfigs largest{{name, max_text}};
    if (name == "max.message.bytes") largest.emplace("term.bytes", "64MiB");
    EXPECT_TRUE(parse_topic_config(largest)) << name;
  }
}

TEST(TopicConfig, RefusesNamingConfigValueAndWhatIsAllowed) {
  expect_refused({{"retention.msec", "5"}}, {"'retention.msec'", "retention.ms,"});
  expect_refused({{"retention.ms", "soon"}}, {"retention.ms", "'soon'"});
  expect_refused({{"retention.ms", ""}}, {"retention.ms", "''"});
  expect_refused({{"flush.ms", "1500us"}}, {"flush.ms", "'1500us'", "whole"});
  expect_refused({{"segment.bytes", "1000000"}}, {"segment.bytes=1000000", "1048576 to"});
  expect_refused({{"storage", "tape"}}, {"storage=tape", "disk | memory"});
  expect_refused({{"storage", "Disk"}}, {"storage=Disk", "disk | memory"});
  expect_refused({{"cleanup.policy", "shred"}},
                 {"cleanup.policy=shred", "delete | compact | compact,delete"});
  expect_refused({{"min.cleanable.dirty.ratio", "half"}}, {"min.cleanable.dirty.ratio", "'half'", "0.5"});
  expect_refused({{"min.cleanable.dirty.ratio", "1.1"}}, {"min.cleanable.dirty.ratio=1.1", "0 to 1"});
  expect_refused({{"message.timestamp.type", "Never"}}, {"CreateTime | LogAppendTime"});
  expect_refused({{"ring.terms", "8K"}}, {"ring.terms", "'8K'"});
}

TEST(TopicConfig, TermBytesIsAPowerOfTwo) {
  expect_refused({{"term.bytes", "100000"}}, {"term.bytes=100000", "131072"});
}

TEST(TopicConfig, LargestMessageFollowsTheTerm) {
  EXPECT_EQ(parse_topic_config({})->max_message_bytes, 1 << 20);
  EXPECT_EQ(parse_topic_config({{"term.bytes", "64KiB"}})->max_message_bytes, 8 << 10);
  EXPECT_EQ(parse_topic_config({{"term.bytes", "64MiB"}})->max_message_bytes, 1 << 20);
  EXPECT_TRUE(parse_topic_config({{"term.bytes", "64KiB"}, {"max.message.bytes", "8192"}}));
  expect_refused({{"term.bytes", "64KiB"}, {"max.message.bytes", "8193"}},
                 {"max.message.bytes=8193", "8192", "raise term.bytes", "131072"});
  expect_refused({{"max.message.bytes", "1048577"}},
                 {"max.message.bytes=1048577", "raise term.bytes to 16777216"});
  expect_refused({{"term.bytes", "64MiB"}, {"max.message.bytes", "2MiB"}, {"segment.bytes", "1MiB"}},
                 {"max.message.bytes=2097152", "segment.bytes=1048576"});
}

TEST(TopicConfig, TheRemedyForALargeMessageWorks) {
  EXPECT_TRUE(parse_topic_config({{"max.message.bytes", "1MiB"}, {"term.bytes", "16777216"}}));
}

TEST(TopicConfig, OverwriteNeedsMemory) {
  expect_refused({{"on.full", "overwrite"}}, {"on.full=overwrite", "storage=memory"});
  EXPECT_TRUE(parse_topic_config({{"on.full", "overwrite"}, {"storage", "memory"}}));
  EXPECT_TRUE(parse_topic_config({{"on.full", "fail"}}));
}

TEST(TopicConfig, CompactionIsKafkasAndNeedsFiles) {
  EXPECT_FALSE(TopicConfig{}.compacts());
  const auto compact = parse_topic_config({{"cleanup.policy", "compact"}});
  ASSERT_TRUE(compact);
  EXPECT_TRUE(compact->compacts() && !compact->removes());
  for (const char* both : {"compact,delete", "delete,compact"}) {
    const auto config = parse_topic_config({{"cleanup.policy", both}});
    ASSERT_TRUE(config) << both;
    EXPECT_TRUE(config->compacts() && config->removes()) << both;
    EXPECT_EQ(format_topic_config(*config).at("cleanup.policy"), "compact,delete");
    expect_refused({{"cleanup.policy", both}, {"storage", "memory"}},
                   {"cleanup.policy=compact,delete", "storage=disk", "cleanup.policy=delete"});
  }
}

TEST(TopicConfig, MergeSetsRestoresAndSpellsOneWay) {
  const TopicConfigs overrides{{"retention.ms", "5"}, {"flush.ms", "6"}};
  EXPECT_EQ(merge_topic_configs(overrides, {{"retention.ms", ""}, {"segment.bytes", "2MiB"}}),
            (TopicConfigs{{"flush.ms", "6"}, {"segment.bytes", "2097152"}}));
  EXPECT_EQ(merge_topic_configs(overrides, {}), overrides);
  EXPECT_EQ(merge_topic_configs({}, {{"flush.ms", ""}}), TopicConfigs{});
  EXPECT_EQ(merge_topic_configs({}, {{"flush", ""}}).error().code, Code::invalid_argument);
  EXPECT_EQ(merge_topic_configs({}, {{"flush.ms", "x"}}).error().code, Code::invalid_argument);
  // Each alone would do, together they contradict each other.
  EXPECT_FALSE(merge_topic_configs({{"storage", "disk"}}, {{"on.full", "overwrite"}}));
}

TEST(TopicConfig, SomeAreFixedAtCreation) {
  for (const ConfigReference& reference : topic_config_reference()) {
    const bool fixed = reference.name == "storage" || reference.name == "term.bytes" ||
                       reference.name == "ring.terms" || reference.name == "message.timestamp.type";
    EXPECT_EQ(reference.alterable, !fixed) << reference.name;
    const auto status =
        check_alterable({{std::string(reference.name), std::string(reference.default_value)}});
    EXPECT_EQ(status.has_value(), !fixed) << reference.name;
  }
  EXPECT_EQ(check_alterable({{"nothing", "1"}}).error().code, Code::invalid_argument);
  EXPECT_NE(check_alterable({{"storage", "memory"}}).error().message.find("storage=memory"),
            std::string::npos);
}

TEST(TopicConfig, ReferenceListsKafkasNamesWithDefaultsThatHold) {
  TopicConfigs defaults;
  for (const ConfigReference& reference : topic_config_reference()) {
    EXPECT_FALSE(reference.description.empty());
    EXPECT_FALSE(reference.values.empty());
    defaults.emplace(reference.name, reference.default_value);
  }
  EXPECT_EQ(defaults, format_topic_config(TopicConfig{}));
  EXPECT_EQ(parse_topic_config(defaults), TopicConfig{});
  for (const char* name : {"retention.ms",
                           "retention.bytes",
                           "segment.bytes",
                           "segment.ms",
                           "max.message.bytes",
                           "message.timestamp.type",
                           "min.insync.replicas",
                           "cleanup.policy",
                           "flush.ms",
                           "index.interval.bytes",
                           "storage",
                           "on.full",
                           "term.bytes",
                           "ring.terms",
                           "claim.timeout.ms",
                           "reader.pin.ms",
                           "min.cleanable.dirty.ratio",
                           "min.compaction.lag.ms",
                           "max.compaction.lag.ms",
                           "delete.retention.ms"}) {
    EXPECT_TRUE(defaults.contains(name)) << name;
  }
  EXPECT_EQ(defaults.size(), 22u);
}

TEST(TopicName, AllowsWhatKafkaAllows) {
  for (const std::string& name :
       {std::string("orders"), std::string("a"), std::string("A-z_0.9"), std::string(".x"),
        std::string("..."), std::string("__consumer_offsets"), std::string(200, 'n')}) {
    EXPECT_TRUE(check_topic_name(name)) << name;
  }
}

TEST(TopicName, SaysWhichRuleIsBroken) {
  const std::pair<std::string, std::string_view> cases[] = {
      {"", "empty"},
      {".", "'.'"},
      {"..", "'..'"},
      {"a/b", "'/'"},
      {"../etc", "'/'"},
      {"~new-1", "'~'"},
      {"a b", "' '"},
      {std::string("a\0b", 3), "byte 0x00 at 1"},
      {"caf\xc3\xa9", "byte 0xc3 at 3"},
      {std::string(201, 'n'), "201 characters, at most 200"},
      {std::string(300, 'n'), "300 characters"},
  };
  for (const auto& [name, part] : cases) {
    const auto status = check_topic_name(name);
    ASSERT_FALSE(status) << name;
    EXPECT_EQ(status.error().code, Code::invalid_argument);
    EXPECT_NE(status.error().message.find(part), std::string::npos) << status.error().message;
  }
}

}  // namespace
}  // namespace ringtail
