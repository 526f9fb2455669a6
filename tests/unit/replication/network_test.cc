#include "replication/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/logger.h"
#include "replication/asio.h"
#include "support/etcd_process.h"
#include "support/no_descriptors.h"
#include "support/thread_shortage.h"
#include "unit/base/scratch_dir.h"

namespace ringtail::replication {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// Nodes of one process; one thread runs them all.
class NetworkTest : public ::testing::Test {
 protected:
  struct Node {
    std::vector<std::string> received;
    std::vector<NodeId> up;
    std::vector<NodeId> down;
    std::vector<NodeId> refused;
    std::unique_ptr<Network> network;
  };

  NetworkTest() { logger().set_level(spdlog::level::off); }

  // A machine that is busy elsewhere is silent for long: only who tests that is impatient.
  static constexpr milliseconds kImpatient{150};

  NetworkOptions options(std::uint32_t id, milliseconds silence = milliseconds(30'000)) const {
    NetworkOptions options;
    options.self = NodeId(id);
    options.incarnation = 1000 + id;
    options.cluster = "test";
    options.listen = {"127.0.0.1", 0};
    options.ping_interval = milliseconds(20);
    options.silence = silence;
    options.redial = milliseconds(10);
    options.dial_anyway = milliseconds(40);
    return options;
  }
  Node& start(const NetworkOptions& options) {
    nodes_.push_back(std::make_unique<Node>());
    Node& node = *nodes_.back();
    auto network =
        Network::open(context_, options,
                      {.up = [&node](Link& link) { node.up.push_back(link.peer()); },
                       .message =
                           [&node](Link&, const Message& message) {
                             node.received.emplace_back(reinterpret_cast<const char*>(message.body.data()),
                                                        message.body.size());
                           },
                       .down = [&node](Link& link) { node.down.push_back(link.peer()); },
                       .writable = [](Link&) {},
                       .refused = [&node](NodeId peer) { node.refused.push_back(peer); }});
    EXPECT_TRUE(network) << to_string(network.error());
    node.network = std::move(*network);
    return node;
  }
  Address address_of(const Node& node) const { return {"127.0.0.1", node.network->port()}; }
  void introduce(Node& one, Node& two) {
    one.network->set_peers({{NodeId(2), address_of(two)}});
    two.network->set_peers({{NodeId(1), address_of(one)}});
  }
  // A test that waits in vain is ended by ctest.
  void run_until(const std::function<bool()>& reached) {
    while (!reached()) context_.run_one_for(milliseconds(5));
  }
  void run_for(milliseconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < end) context_.run_one_for(milliseconds(5));
  }

  // Between other messages, from one to two, which find all of them in order.
  void send_files(Node& one, Node& two) {
    run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
    const ringtail::testing::ScratchDir dir;
    std::string content(2 << 20, ' ');
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 2654435761u >> 13);
    std::ofstream(dir / "file", std::ios::binary) << content;
    auto backend = io::make_backend(IoBackend::pwrite, 1).value();
    const io::File file = backend->open(dir / "file", io::OpenMode::read).value();
    std::vector<std::string> expected;
    Link& link = *one.network->link(NodeId(2));
    EXPECT_TRUE(link.takes_unchecked());
    for (std::size_t i = 0; i < 40; ++i) {
      const std::size_t bytes = 1 + i * 20'000;
      for (std::size_t n = 0; n < i % 3; ++n) {
        expected.push_back("m" + std::to_string(i));
        link.send({.type = MessageType::frames}, bytes_of(expected.back()));
      }
      const std::size_t before = link.queued();
      link.send_unchecked({.type = MessageType::frames}, io::FileBytes::read(file, i * 31, bytes).value());
      EXPECT_EQ(link.queued(), before + kMessageHeaderBytes + bytes);
      expected.push_back(content.substr(i * 31, bytes));
      if (i % 10 == 9) run_until([&] { return two.received.size() == expected.size(); });
    }
    EXPECT_TRUE(two.received == expected);
    run_until([&] { return link.queued() == 0; });
  }

  // From one to two, whose kernel has no room for all of it before two reads. What they came from is another
  // message's as soon as they are sent.
  void send_in_place(Node& one, Node& two) {
    run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
    Link& link = *one.network->link(NodeId(2));
    std::string body;
    std::vector<std::string> expected;
    for (std::size_t i = 0; i < 120; ++i) {
      const std::size_t bytes = i % 7 == 0 ? i : 1 + i * 5'000;
      body.assign(bytes, static_cast<char>('A' + i % 50));
      if (bytes > 0) body.back() = '.';
      expected.push_back(body);
      if (i % 4 == 3)
        link.send({.type = MessageType::frames}, bytes_of(body));
      else
        link.send_in_place({.type = MessageType::frames}, bytes_of(body));
      if (i == 59) run_until([&] { return two.received.size() == expected.size(); });
    }
    EXPECT_GT(link.queued(), 1u << 20);
    run_until([&] { return two.received.size() == expected.size(); });
    EXPECT_TRUE(two.received == expected);
    run_until([&] { return link.queued() == 0; });
  }

  asio::io_context context_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

TEST_F(NetworkTest, TwoNodesHaveOneConnectionOverWhichMessagesGoBothWaysInOrder) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  introduce(one, two);
  run_until(
      [&] { return one.network->link(NodeId(2)) != nullptr && two.network->link(NodeId(1)) != nullptr; });
  EXPECT_EQ(one.network->link(NodeId(2))->peer_incarnation(), 1002u);
  const std::string large(3 << 20, 'x');
  for (int i = 0; i < 100; ++i) {
    one.network->link(NodeId(2))->send({.type = MessageType::frames}, bytes_of("a" + std::to_string(i)));
    two.network->link(NodeId(1))->send({.type = MessageType::frames}, bytes_of("b" + std::to_string(i)));
  }
  one.network->link(NodeId(2))->send({.type = MessageType::frames}, bytes_of(large));
  run_until([&] { return one.received.size() == 100 && two.received.size() == 101; });
  for (std::size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(one.received[i], "b" + std::to_string(i));
    EXPECT_EQ(two.received[i], "a" + std::to_string(i));
  }
  EXPECT_EQ(two.received[100], large);
  EXPECT_EQ(one.up.size(), 1u);
}

// Names are resolved by a thread that is made for the first one.
TEST_F(NetworkTest, APeerIsDialedAgainWhereNoThreadWasToBeHadForItsName) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  {
    const ringtail::testing::ThreadShortage shortage;
    introduce(one, two);
    run_for(milliseconds(100));
    EXPECT_TRUE(one.up.empty());
  }
  run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
}

TEST_F(NetworkTest, FilesComeInOrderBetweenTheOthers) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  introduce(one, two);
  send_files(one, two);
}

TEST_F(NetworkTest, WhatIsSentInPlaceComesInOrderBetweenTheOthers) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  introduce(one, two);
  send_in_place(one, two);
}

TEST_F(NetworkTest, WhatIsSentInPlaceMayBeCompressed) {
  NetworkOptions compressed = options(1);
  compressed.compression = Compression::lz4;
  Node& one = start(compressed);
  Node& two = start(options(2));
  introduce(one, two);
  run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
  const std::string body(200'000, 'x');
  Link& link = *one.network->link(NodeId(2));
  link.send_in_place({.type = MessageType::frames}, bytes_of(body));
  EXPECT_LT(link.queued(), body.size() / 10);
  run_until([&] { return !two.received.empty(); });
  EXPECT_EQ(two.received[0], body);
}

TEST_F(NetworkTest, WhatTheKernelTakesAtOnceIsNotQueued) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  introduce(one, two);
  run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
  Link& link = *one.network->link(NodeId(2));
  run_until([&] { return link.queued() == 0; });
  for (int i = 0; i < 3; ++i) link.send_in_place({.type = MessageType::frames}, bytes_of("at once"));
  EXPECT_EQ(link.queued(), 0u);
  run_until([&] { return two.received.size() == 3; });
}

// A caller who goes through his streams must not find them changed: who is gone is learnt of later.
TEST_F(NetworkTest, SendingInPlaceToWhoIsGoneEndsTheConnectionLater) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  introduce(one, two);
  run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
  Link& link = *one.network->link(NodeId(2));
  run_until([&] { return link.queued() == 0; });
  two.network.reset();
  for (int i = 0; i < 50 && one.down.empty(); ++i) {
    link.send_in_place({.type = MessageType::frames}, bytes_of("into the void"));
    ASSERT_TRUE(one.down.empty());
    std::this_thread::sleep_for(milliseconds(1));
  }
  run_until([&] { return !one.down.empty(); });
}

TEST_F(NetworkTest, BothSidesLearnThatTheOthersDaemonIsGoneWhileItsHostAnswers) {
  for (const std::uint32_t gone : {1U, 2U}) {
    nodes_.clear();
    Node& one = start(options(1));
    Node& two = start(options(2));
    introduce(one, two);
    run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
    Node& left = gone == 1 ? two : one;
    (gone == 1 ? one : two).network.reset();
    run_until([&] { return !left.refused.empty(); });
    EXPECT_EQ(left.refused.front(), NodeId(gone));
  }
}

TEST_F(NetworkTest, WhereTheLowerIdCannotDialTheHigherOneDoes) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  Node& gone = start(options(3));
  const Address nobody = address_of(gone);
  gone.network.reset();
  one.network->set_peers({{NodeId(2), nobody}});
  two.network->set_peers({{NodeId(1), address_of(one)}});
  run_until([&] { return one.up.size() == 1 && two.up.size() == 1; });
}

TEST_F(NetworkTest, OfTwoConnectionsBothKeepTheSame) {
  for (int round = 0; round < 10; ++round) {
    nodes_.clear();
    NetworkOptions eager = options(2);
    eager.dial_anyway = milliseconds(-1);
    Node& one = start(options(1));
    Node& two = start(eager);
    introduce(one, two);
    // What is sent over one that gives way to the other is lost, as with any connection that ends.
    const auto send = [](Node& from, NodeId to) {
      if (Link* link = from.network->link(to)) link->send({.type = MessageType::frames}, bytes_of("a"));
    };
    run_until([&] {
      send(one, NodeId(2));
      send(two, NodeId(1));
      return !one.received.empty() && !two.received.empty() && one.up.size() - one.down.size() == 1 &&
             two.up.size() - two.down.size() == 1;
    });
    run_for(milliseconds(50));
    EXPECT_LE(one.up.size(), 2U);  // they do not go on replacing each other
    EXPECT_LE(two.up.size(), 2U);
  }
}

TEST_F(NetworkTest, AConnectionThatIsLostIsMadeAnew) {
  Node& one = start(options(1));
  Node& two = start(options(2));
  introduce(one, two);
  run_until([&] { return two.up.size() == 1; });
  two.network->link(NodeId(1))->close("a test wants it");
  EXPECT_EQ(two.down.size(), 1u);
  run_until([&] { return one.up.size() == 2 && two.up.size() == 2; });
  EXPECT_EQ(one.down.size(), 1u);
}

TEST_F(NetworkTest, AnIdleConnectionStays) {
  Node& one = start(options(1, milliseconds(1000)));
  Node& two = start(options(2, milliseconds(1000)));
  introduce(one, two);
  run_until([&] { return two.up.size() == 1; });
  run_for(milliseconds(2500));
  EXPECT_TRUE(one.down.empty());
  EXPECT_TRUE(two.down.empty());
}

TEST_F(NetworkTest, AStrangerIsNotLetIn) {
  Node& one = start(options(1));
  NetworkOptions other = options(2);
  other.cluster = "another";
  Node& two = start(other);
  introduce(one, two);
  run_until([&] { return !one.network->trouble(NodeId(2)).empty(); });
  run_for(milliseconds(50));
  EXPECT_TRUE(one.up.empty());
  EXPECT_TRUE(two.up.empty());
  // Node 3 is none of the peers.
  Node& three = start(options(3));
  Node& four = start(options(4));
  three.network->set_peers({{NodeId(4), address_of(four)}});
  run_for(milliseconds(100));
  EXPECT_TRUE(four.up.empty());
}

TEST_F(NetworkTest, WhoSendsGarbageHalfAMessageOrNothingIsClosed) {
  Node& one = start(options(1, kImpatient));
  one.network->set_peers({{NodeId(2), {"127.0.0.1", 1}}});
  std::vector<std::byte> hello;
  append_message(hello, {.type = MessageType::hello},
                 bytes_of(R"({"cluster":"test","node":2,"incarnation":"000000000000000a"})"));
  const std::string whole(reinterpret_cast<const char*>(hello.data()), hello.size());
  for (const std::string& text :
       {std::string("GET / HTTP/1.1\r\nHost: ringtail\r\n\r\n") + std::string(80, ' '),
        whole.substr(0, whole.size() / 2), std::string(), std::string(100'000, '\0'),
        whole + whole.substr(0, 40)}) {
    tcp::socket socket(context_);
    socket.connect({asio::ip::make_address("127.0.0.1"), one.network->port()});
    asio::write(socket, asio::buffer(text));
    bool closed = false;
    std::array<char, 4096> some;
    std::function<void()> read = [&] {
      socket.async_read_some(asio::buffer(some), [&](boost::system::error_code error, std::size_t) {
        closed = static_cast<bool>(error);
        if (!closed) read();
      });
    };
    read();
    run_until([&] { return closed; });
  }
  EXPECT_EQ(one.network->link(NodeId(2)), nullptr);
  EXPECT_EQ(one.up.size(), 1u);  // it said hello, and then no more
  EXPECT_EQ(one.down.size(), 1u);
}

// Who dials has to wait until there are some; nobody's CPU is taken for it.
TEST_F(NetworkTest, WithoutDescriptorsItTriesToAcceptNowAndThen) {
  Node& one = start(options(1));
  tcp::socket socket(context_);
  socket.connect({asio::ip::make_address("127.0.0.1"), one.network->port()});
  {
    const testing::NoDescriptors none;
    std::size_t handlers = 0;
    const auto end = std::chrono::steady_clock::now() + milliseconds(100);
    while (std::chrono::steady_clock::now() < end) handlers += context_.run_one_for(milliseconds(5));
    EXPECT_LT(handlers, 200u);  // some ten ticks, and as many attempts
  }
  std::array<char, 1> some;
  bool greeted = false;
  asio::async_read(socket, asio::buffer(some),
                   [&](boost::system::error_code error, std::size_t) { greeted = !error; });
  run_until([&] { return greeted; });
}

TEST_F(NetworkTest, AnAddressInUseIsNamed) {
  Node& one = start(options(1));
  NetworkOptions same = options(2);
  same.listen = address_of(one);
  const auto refused = Network::open(context_, same, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::already_exists);
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(same.listen.port)));
}

class NetworkTls : public NetworkTest {
 protected:
  void SetUp() override {
    std::string trouble;
    ASSERT_TRUE(test::make_certificates(dir_.path(), trouble)) << trouble;
  }
  NetworkOptions with(std::uint32_t id, const char* ca, const char* name) const {
    NetworkOptions result = options(id);
    result.tls = PeerTls{dir_ / ca, dir_ / (std::string(name) + ".pem"), dir_ / (std::string(name) + ".key")};
    return result;
  }
  ringtail::testing::ScratchDir dir_;
};

TEST_F(NetworkTls, NodesOfOneAuthorityTalk) {
  Node& one = start(with(1, "ca.pem", "client"));
  Node& two = start(with(2, "ca.pem", "server"));
  introduce(one, two);
  run_until(
      [&] { return one.network->link(NodeId(2)) != nullptr && two.network->link(NodeId(1)) != nullptr; });
  one.network->link(NodeId(2))->send({.type = MessageType::frames}, bytes_of("secret"));
  run_until([&] { return !two.received.empty(); });
  EXPECT_EQ(two.received[0], "secret");
}

TEST_F(NetworkTls, FilesComeInOrderBetweenTheOthers) {
  Node& one = start(with(1, "ca.pem", "client"));
  Node& two = start(with(2, "ca.pem", "server"));
  introduce(one, two);
  send_files(one, two);
}

TEST_F(NetworkTls, WhatIsSentInPlaceComesInOrderBetweenTheOthers) {
  Node& one = start(with(1, "ca.pem", "client"));
  Node& two = start(with(2, "ca.pem", "server"));
  introduce(one, two);
  send_in_place(one, two);
}

TEST_F(NetworkTls, WhoIsOfAnotherAuthorityOrSpeaksPlainlyIsNotLetIn) {
  Node& one = start(with(1, "ca.pem", "client"));
  Node& two = start(with(2, "other.pem", "server"));
  introduce(one, two);
  run_until([&] { return !one.network->trouble(NodeId(2)).empty(); });
  Node& plain = start(options(2));
  one.network->set_peers({{NodeId(2), address_of(plain)}});
  plain.network->set_peers({{NodeId(1), address_of(one)}});
  run_for(milliseconds(400));
  EXPECT_TRUE(one.up.empty());
  EXPECT_TRUE(two.up.empty());
  EXPECT_TRUE(plain.up.empty());
}

TEST_F(NetworkTls, AFileThatCannotBeUsedIsNamed) {
  NetworkOptions broken = with(1, "ca.pem", "server");
  broken.tls->key = dir_ / "missing.key";
  const auto refused = Network::open(context_, broken, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid_argument);
  EXPECT_THAT(refused.error().message, HasSubstr("missing.key"));
}

}  // namespace
}  // namespace ringtail::replication
