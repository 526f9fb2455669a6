// Runs a program under what a systemd unit allows it of system calls: `sandboxed UNIT UID[:GID] COMMAND...`, as that
// user, in that group, too. Of the unit it heeds SystemCallFilter=, SystemCallErrorNumber=EPERM, NoNewPrivileges=,
// MemoryDenyWriteExecute=, RestrictSUIDSGID= and RestrictAddressFamilies=, as systemd.exec(5) describes them.
#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

[[noreturn]] void die(const std::string& what) {
  std::cerr << "sandboxed: " << what << '\n';
  std::exit(125);
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// --- systemd's sets of system calls, as it lists them ------------------------------------------------

using Sets = std::map<std::string, std::vector<std::string>>;

Sets load_sets() {
  std::FILE* const list = ::popen("systemd-analyze --no-pager syscall-filter", "r");
  if (list == nullptr) die("cannot run systemd-analyze");
  Sets sets;
  std::string line, set;
  for (int c = std::fgetc(list); c != EOF; c = std::fgetc(list)) {
    if (c != '\n') {
      line += static_cast<char>(c);
      continue;
    }
    const auto words = words_of(line);
    if (!line.empty() && line[0] == '@') set = words[0];
    if (!line.empty() && line[0] == ' ' && words.size() == 1) sets[set].push_back(words[0]);
    if (!line.empty() && line[0] == '#') set.clear();  // calls that are in no set
    line.clear();
  }
  if (::pclose(list) != 0 || !sets.contains("@default")) die("systemd-analyze lists no sets");
  return sets;
}

void expand(const Sets& sets, const std::string& name, std::set<std::string>& calls) {
  if (name[0] != '@') {
    calls.insert(name);
    return;
  }
  const auto found = sets.find(name);
  if (found == sets.end()) die("there is no set " + name);
  for (const std::string& member : found->second) expand(sets, member, calls);
}

// --- The unit ------------------------------------------------------------------------------------

struct Unit {
  std::vector<std::string> filters;
  std::set<std::string> yes;  // settings that are switched on
  std::vector<std::string> families;
};

Unit load_unit(const char* path) {
  std::ifstream file(path);
  if (!file) die(std::string("cannot read ") + path);
  Unit unit;
  for (std::string line; std::getline(file, line);) {
    const std::size_t equals = line.find('=');
    if (line.empty() || line[0] == '#' || equals == std::string::npos) continue;
    const std::string key = line.substr(0, equals), value = line.substr(equals + 1);
    if (key == "SystemCallFilter") unit.filters.push_back(value);
    if (key == "RestrictAddressFamilies") unit.families = words_of(value);
    if (value == "yes") unit.yes.insert(key);
    if (key == "SystemCallErrorNumber" && value != "EPERM") die("another errno than EPERM");
  }
  if (unit.filters.empty()) die("the unit has no SystemCallFilter");
  return unit;
}

// The first line decides that it is a list of what is allowed; a later one adds, or takes away by "~".
std::set<std::string> allowed_by(const Unit& unit) {
  const Sets sets = load_sets();
  std::set<std::string> allowed;
  expand(sets, "@default", allowed);
  for (const std::string& filter : unit.filters) {
    const bool takes_away = filter[0] == '~';
    std::set<std::string> calls;
    for (const std::string& word : words_of(filter.substr(takes_away ? 1 : 0))) expand(sets, word, calls);
    for (const std::string& call : calls) {
      if (takes_away)
        allowed.erase(call);
      else
        allowed.insert(call);
    }
  }
  allowed.insert("execve");  // which systemd always allows
  return allowed;
}

// --- The filter ----------------------------------------------------------------------------------

void allow_only(const std::set<std::string>& allowed) {
  const scmp_filter_ctx context = ::seccomp_init(SCMP_ACT_ERRNO(EPERM));
  if (context == nullptr) die("seccomp_init failed");
  for (const std::string& name : allowed)
    if (const int call = ::seccomp_syscall_resolve_name(name.c_str()); call >= 0)
      ::seccomp_rule_add(context, SCMP_ACT_ALLOW, call, 0);
  if (::seccomp_load(context) != 0) die("seccomp_load failed");
  ::seccomp_release(context);
}

// Further filters stand beside the first: what one refuses is refused.
class Denials {
 public:
  Denials() : context_(::seccomp_init(SCMP_ACT_ALLOW)) {
    if (context_ == nullptr) die("seccomp_init failed");
  }
  Denials(const Denials&) = delete;
  Denials& operator=(const Denials&) = delete;
  ~Denials() { ::seccomp_release(context_); }

  void deny(int call, const scmp_arg_cmp& when, int os_errno = EPERM) { add(call, os_errno, {when}); }
  void deny(int call, int os_errno) { add(call, os_errno, {}); }
  void load() {
    if (::seccomp_load(context_) != 0) die("seccomp_load failed");
  }

 private:
  void add(int call, int os_errno, const std::vector<scmp_arg_cmp>& when) {
    if (::seccomp_rule_add_array(context_, SCMP_ACT_ERRNO(static_cast<std::uint16_t>(os_errno)), call,
                                 static_cast<unsigned>(when.size()), when.data()) != 0)
      die("a rule cannot be added");
  }

  scmp_filter_ctx context_;
};

scmp_arg_cmp has(unsigned argument, std::uint64_t bits) {
  return scmp_arg_cmp{argument, SCMP_CMP_MASKED_EQ, bits, bits};
}

void deny_write_execute() {
  Denials denials;
  denials.deny(SCMP_SYS(mmap), has(2, PROT_WRITE | PROT_EXEC));
  denials.deny(SCMP_SYS(mprotect), has(2, PROT_EXEC));
  denials.deny(SCMP_SYS(pkey_mprotect), has(2, PROT_EXEC));
  denials.load();
}

void deny_set_id_bits() {
  Denials denials;
  for (const std::uint64_t bit : {std::uint64_t{S_ISUID}, std::uint64_t{S_ISGID}}) {
    denials.deny(SCMP_SYS(chmod), has(1, bit));
    denials.deny(SCMP_SYS(fchmod), has(1, bit));
    denials.deny(SCMP_SYS(fchmodat), has(2, bit));
    denials.deny(SCMP_SYS(mkdir), has(1, bit));
    denials.deny(SCMP_SYS(mkdirat), has(2, bit));
  }
  denials.deny(SCMP_SYS(openat2), ENOSYS);  // its mode cannot be looked at
  denials.load();
}

void deny_other_families(const std::vector<std::string>& allowed) {
  const std::map<std::string, int> known = {
      {"AF_UNIX", AF_UNIX}, {"AF_INET", AF_INET}, {"AF_INET6", AF_INET6}, {"AF_NETLINK", AF_NETLINK}};
  std::set<int> families;
  for (const std::string& name : allowed) {
    if (!known.contains(name)) die("this knows nothing of " + name);
    families.insert(known.at(name));
  }
  Denials denials;
  for (int family = 0; family < AF_MAX; ++family)
    if (!families.contains(family))
      denials.deny(SCMP_SYS(socket), scmp_arg_cmp{0, SCMP_CMP_EQ, static_cast<std::uint64_t>(family), 0},
                   EAFNOSUPPORT);
  denials.load();
}

void become(const char* user) {
  char* end = nullptr;
  const auto id = static_cast<uid_t>(std::strtoul(user, &end, 10));
  if (::geteuid() != 0 || id == 0) return;
  const auto group = static_cast<gid_t>(*end == ':' ? std::strtoul(end + 1, nullptr, 10) : 0);
  if (::setgroups(group == 0 ? 0 : 1, &group) != 0 || ::setgid(id) != 0 || ::setuid(id) != 0)
    die("cannot become that user");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) die("sandboxed UNIT UID[:GID] COMMAND...");
  const Unit unit = load_unit(argv[1]);
  const std::set<std::string> allowed = allowed_by(unit);
  become(argv[2]);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) die("no_new_privs failed");
  // The list of what is allowed comes last, since it does not allow to add to it.
  if (unit.yes.contains("MemoryDenyWriteExecute")) deny_write_execute();
  if (unit.yes.contains("RestrictSUIDSGID")) deny_set_id_bits();
  if (!unit.families.empty()) deny_other_families(unit.families);
  allow_only(allowed);
  ::execvp(argv[3], argv + 3);
  die(std::string("cannot run ") + argv[3] + ": " + std::strerror(errno));
}
