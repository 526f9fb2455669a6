#include "shm/doorbell.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/access.h"
#include "base/result.h"

namespace ringtail::shm {

namespace {

// False if the path is too long for a socket's address.
bool address_of(const std::filesystem::path& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  const std::string& text = path.native();
  if (text.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, text.data(), text.size());
  return true;
}

int open_socket() { return ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

}  // namespace

std::filesystem::path doorbell_path(const std::filesystem::path& shm_dir) { return shm_dir / "shipper.sock"; }

void ring_doorbell(const std::filesystem::path& shm_dir, std::uint32_t number) {
  thread_local Descriptor socket;
  if (!socket) socket = Descriptor(open_socket());
  sockaddr_un address;
  if (!socket || !address_of(doorbell_path(shm_dir), address)) return;
  // Lost where the queue is full: see Doorbell::kMostHeard.
  (void)::sendto(socket.get(), &number, sizeof number, MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

Result<Doorbell> Doorbell::open(const std::filesystem::path& shm_dir) {
  const auto path = doorbell_path(shm_dir);
  sockaddr_un address;
  if (!address_of(path, address))
    return fail(Code::limit_exceeded,
                fmt::format("'{}' is too long for a socket; choose a shorter shared-memory directory",
                            path.native()));
  const auto folder = Folder::open(shm_dir);
  if (!folder) return std::unexpected(folder.error());
  Descriptor socket{open_socket()};
  if (!socket) return fail_errno(errno, "cannot make a socket");
  ::unlink(path.c_str());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, fmt::format("cannot listen at '{}'", path.native()));
  if (auto given = folder->give(path.filename()); !given) return std::unexpected(given.error());
  return Doorbell(std::move(socket));
}

bool Doorbell::next(std::uint32_t& number) const {
  return ::recv(socket_.get(), &number, sizeof number, MSG_DONTWAIT) == sizeof number;
}

}  // namespace ringtail::shm
