/* A replicated partition: fence, epoch, in-sync replicas, high watermark, truncation, hand-over.
 *
 * Stands for src/replication/{replica,leading,following,progress,placement,node_elections,node_state}.cc and
 * src/log/{partition_role,replica_writer,epoch_list,appender_outcome}.cc. Each step has the function it stands for
 * beside it. What is left out, and how to read a counterexample: README.md.
 *
 * A step is what one thread does between two messages, so each is atomic. Offsets stand for positions: a record is
 * one of each. Variables that begin with g_ are ghosts.
 *
 * Elections may happen at any time, be the leader alive or not, with or without a lease: nothing here rests on
 * clocks but the lease's end for who waits. What holds so holds whatever the leases do.
 */

#define NODES 3
#ifndef RECORDS
#define RECORDS 2 /* that are appended, in all */
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif
#ifndef CRASHES
#define CRASHES 0 /* of hosts: what is not synced is gone */
#endif
#ifndef CUTS
#define CUTS 0 /* of connections, or refusals of streams */
#endif
#ifndef FLAPS
#define FLAPS 0 /* leases that run out for their holder, and are renewed */
#endif
#ifndef UNKNOWN
#define UNKNOWN 0 /* commits whose outcome their author is not told (timed_out) */
#endif
#ifndef CHANGES
#define CHANGES 2 /* of the ISR that are tried */
#endif
#ifndef HAND_OVERS
#define HAND_OVERS 0
#endif
#ifndef SYNCED
#define SYNCED 0 /* 1: replica.ack=durable: a replica has a record when it has synced it */
#endif
#ifndef IN_SYNC
#define IN_SYNC 7 /* who is in sync at the beginning, as bits: 3 is all but the last */
#endif
#define MIN_INSYNC 2

#define NOBODY 7
#define HAS(set, node) (((set) >> (node)) & 1)
#define BIT(node) (1 << (node))
#define COUNT(set) (HAS(set, 0) + HAS(set, 1) + HAS(set, 2))
#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define MIN(a, b) ((a) < (b) -> (a) : (b))

/* --- The record in etcd: PartitionRecord, coordinator.h --------------------------------------------- */

bit record_incarnation; /* leader_incarnation: a bit, which changes with a crash */
byte record_leader, record_epoch = 1, record_isr = IN_SYNC, record_life /* of each member: a bit */, record_revision;

/* A commit on its way: compares the revision it was made from. [0, NODES): the author waits for its outcome;
 * [NODES]: one whose author was told that it is not known. */
byte commit_isr[NODES + 1], commit_life[NODES + 1], commit_base[NODES + 1], commit_author;
bit commit_going[NODES + 1];

/* --- Hosts ------------------------------------------------------------------------------------------ */

byte life; /* of each host's memory: a bit, which changes with a crash */
byte log_of[NODES * RECORDS], log_end[NODES], synced[NODES], watermark[NODES];
byte epoch_start[NODES * EPOCHS]; /* EpochList: plus one; 0: not in it. Of epoch e at e - 1 */
bit no_lease[NODES];              /* lease_deadline_ns has passed, for its holder */

/* What the node has seen of the record: Replica::set_record. */
bit incarnation[NODES], seen_incarnation[NODES];
byte seen_leader[NODES], seen_epoch[NODES] = 1, seen_isr[NODES] = IN_SYNC, seen_life[NODES], seen_revision[NODES];

/* Replica::reached_ */
#define FENCED 0
#define FOLLOWER 1
#define LEADER 2
byte role[NODES], role_epoch[NODES];

/* A leader: LeadingPartition, LeaderProgress. Gone with the leadership; but what it has proposed stays so until
 * a later record is seen, for it may yet be made, or have been. */
byte isr[NODES], proposed[NODES];
bit await_record[NODES];
byte end_of[NODES * NODES];       /* LeaderProgress::Follower: what counts as had */
bit stream[NODES * NODES];        /* LeadingPartition::streams_ */
bit streaming[NODES * NODES];     /* and the follower has acknowledged where it begins */
bit stream_life[NODES * NODES];   /* the follower's life in which it asked for it */

/* A follower: FollowingPartition, and the acknowledgement on its way. */
bit follows[NODES]; /* State::streaming */
byte ack_end[NODES]; /* plus one; 0: none */

/* What the leader of an epoch has shipped, or will: it is the same whenever it arrives. */
byte shipped[EPOCHS * RECORDS], shipped_end[EPOCHS], shipped_watermark[EPOCHS];

/* --- A producer that waits: Appender::check_replicas, append, wait_replicated ------------------------- */

byte appended_at[RECORDS], appended_offset[RECORDS], appended_epoch[RECORDS];
bit covered[RECORDS]; /* it has seen a watermark behind its record */
bit led[RECORDS];     /* only of the mutant that asks in the wrong order */
bit acknowledged[RECORDS];
byte records;

byte g_crashes = CRASHES, g_cuts = CUTS, g_flaps = FLAPS, g_unknown = UNKNOWN, g_changes = CHANGES,
     g_hand_overs = HAND_OVERS;
byte g_led_by[EPOCHS]; /* plus one: who has led in that epoch */

#define LOG(node, offset) log_of[(node) * RECORDS + (offset)]
#define START(node, epoch) epoch_start[(node) * EPOCHS + (epoch) - 1]
#define SHIPPED(epoch, offset) shipped[((epoch) - 1) * RECORDS + (offset)]
#define OF(leader, node) ((leader) * NODES + (node))
#define LIFE(node) HAS(life, node)

/* --- What must hold --------------------------------------------------------------------------------- */

byte i, j, k, set; /* of the step that is being taken; 0 between steps */

/* No offset below any two high watermarks has two contents. */
inline check_contents() {
  i = 0;
  do
  :: i < RECORDS ->
     assert(!(i < watermark[0] && i < watermark[1]) || LOG(0, i) == LOG(1, i));
     assert(!(i < watermark[0] && i < watermark[2]) || LOG(0, i) == LOG(2, i));
     assert(!(i < watermark[1] && i < watermark[2]) || LOG(1, i) == LOG(2, i));
     i++
  :: else -> break
  od;
  i = 0
}

/* Whoever leads has every record at its offset that was acknowledged in an earlier epoch. */
inline check_acknowledged(node) {
  i = 0;
  do
  :: i < RECORDS ->
     assert(!acknowledged[i] || appended_epoch[i] >= role_epoch[node] ||
            (log_end[node] > appended_offset[i] && LOG(node, appended_offset[i]) == i + 1));
     i++
  :: else -> break
  od;
  i = 0
}

inline set_watermark(node, to) {
  watermark[node] = to;
  check_contents()
}

/* --- Steps of a leader ------------------------------------------------------------------------------- */

/* LeaderProgress::watermark, LeadingPartition::update_watermark */
inline update_watermark(node) {
  if
  :: COUNT(isr[node]) >= MIN_INSYNC ->
     j = (SYNCED -> synced[node] : log_end[node]);
     i = 0;
     do
     :: i < NODES ->
        if
#ifdef MUTANT_WATERMARK_IGNORES_PROPOSED
        :: i != node && HAS(isr[node], i) -> j = MIN(j, end_of[OF(node, i)])
#else
        :: i != node && HAS(isr[node] | proposed[node], i) -> j = MIN(j, end_of[OF(node, i)])
#endif
        :: else
        fi;
        i++
     :: else -> break
     od;
     i = 0;
     if
     :: j > watermark[node] ->
        shipped_watermark[role_epoch[node] - 1] = j;
        set_watermark(node, j)
     :: else
     fi;
     j = 0
  :: else
  fi
}

/* PartitionKeeper::fence_role, Replica::approach: whatever it was, it is not any more. */
inline fence(node) {
  role[node] = FENCED;
  role_epoch[node] = 0;
  follows[node] = 0;
  ack_end[node] = 0;
  isr[node] = 0;
#ifdef MUTANT_PROPOSAL_FORGOTTEN
  proposed[node] = 0;
#endif
  i = 0;
  do
  :: i < NODES ->
     end_of[OF(node, i)] = 0; stream[OF(node, i)] = 0; streaming[OF(node, i)] = 0; stream_life[OF(node, i)] = 0;
     i++
  :: else -> break
  od;
  i = 0
}

/* PartitionKeeper::lead, EpochList::begin, Replica::ask_lead, confirm */
inline lead(node) {
  role[node] = LEADER;
  role_epoch[node] = seen_epoch[node];
  assert(g_led_by[role_epoch[node] - 1] == 0 || g_led_by[role_epoch[node] - 1] == node + 1);
  g_led_by[role_epoch[node] - 1] = node + 1;
  check_acknowledged(node);
  i = 1;
  do /* epochs without a record give way to the next */
  :: i <= EPOCHS ->
     if
     :: START(node, role_epoch[node]) == 0 && START(node, i) > log_end[node] -> START(node, i) = 0
     :: else
     fi;
     i++
  :: else -> break
  od;
  if
  :: START(node, role_epoch[node]) == 0 -> START(node, role_epoch[node]) = log_end[node] + 1
  :: else
  fi;
  i = 0;
  do
  :: i < log_end[node] -> SHIPPED(role_epoch[node], i) = LOG(node, i); i++
  :: else -> break
  od;
  shipped_end[role_epoch[node] - 1] = log_end[node];
  shipped_watermark[role_epoch[node] - 1] = MAX(shipped_watermark[role_epoch[node] - 1], watermark[node]);
  isr[node] = seen_isr[node];
  i = 0;
  do /* streams of an earlier leadership in the same epoch ended with it: followers ask anew */
  :: i < NODES ->
     if
     :: i != node && role[i] == FOLLOWER && role_epoch[i] == role_epoch[node] -> follows[i] = 0; ack_end[i] = 0
     :: else
     fi;
     i++
  :: else -> break
  od;
  i = 0;
  update_watermark(node)
}

/* Appender: one record, by a producer that will wait for all replicas. */
inline append(node) {
  LOG(node, log_end[node]) = records + 1;
  SHIPPED(role_epoch[node], log_end[node]) = records + 1;
  appended_at[records] = node;
  appended_offset[records] = log_end[node];
  appended_epoch[records] = role_epoch[node];
  log_end[node]++;
  shipped_end[role_epoch[node] - 1] = log_end[node];
  records++;
  update_watermark(node)
}

/* LeadingPartition::on_ack, LeaderProgress::on_ack */
inline take_ack(node, from) {
  end_of[OF(node, from)] = MAX(end_of[OF(node, from)], ack_end[from] - 1);
  streaming[OF(node, from)] = 1;
  ack_end[from] = 0;
  update_watermark(node)
}

/* Replica::look_at_isr, propose: `set` is what it is to be. */
inline propose(node) {
  g_changes--;
  commit_going[node] = 1;
  commit_isr[node] = set;
  commit_base[node] = seen_revision[node];
#ifdef MUTANT_LIFE_REFRESHED
  commit_life[node] = life & set;
#else
  /* Who stays, stays in the life he is in sync in. Who comes has it from his stream. */
  commit_life[node] = (seen_life[node] & isr[node] & set) | (life & set & ~isr[node]);
#endif
#ifdef MUTANT_PROPOSAL_REPLACED
  proposed[node] = set;
#else
  /* One whose outcome is not known may yet be made, too. */
  proposed[node] = proposed[node] | set;
#endif
  set = 0
}

/* LeaderProgress::caught_up, Replica::look_at_isr. The leader's watermark may be older than that of the one before;
 * what was acknowledged then ends before this epoch begins. */
#ifdef MUTANT_COMES_AT_WATERMARK
#define CAME_UP_TO(node) watermark[node]
#else
#define CAME_UP_TO(node) MAX(watermark[node], START(node, role_epoch[node]) - 1)
#endif
#define CAUGHT_UP(node, of)                                                                        \
  (!HAS(isr[node], of) && streaming[OF(node, of)] && end_of[OF(node, of)] >= CAME_UP_TO(node) && \
   STREAM_OF_LIFE(node, of))
#ifdef MUTANT_LIFE_NOT_OF_STREAM
#define STREAM_OF_LIFE(node, of) 1
#else
#define STREAM_OF_LIFE(node, of) (stream_life[OF(node, of)] == LIFE(of))
#endif

/* --- Steps of a follower ---------------------------------------------------------------------------- */

/* log::common_end: how far the logs of `a` and `b` are the same. Leaves it in j. */
inline common_end(a, b) {
  j = 0;
  i = EPOCHS;
  do
  :: i > 0 ->
     if
     :: START(a, i) != 0 && START(a, i) == START(b, i) ->
        j = MIN(log_end[a], log_end[b]);
        k = i + 1;
        do
        :: k <= EPOCHS && START(a, k) != 0 -> j = MIN(j, START(a, k) - 1); break
        :: k <= EPOCHS && START(a, k) == 0 -> k++
        :: else -> break
        od;
        k = i + 1;
        do
        :: k <= EPOCHS && START(b, k) != 0 -> j = MIN(j, START(b, k) - 1); break
        :: k <= EPOCHS && START(b, k) == 0 -> k++
        :: else -> break
        od;
        k = 0;
        break
     :: else -> i--
     fi
  :: else -> break
  od;
  i = 0
}

/* FollowingPartition::ask, LeadingPartition::on_follow, FollowingPartition::on_start, PartitionKeeper::follow */
inline follow(node, leader) {
#if defined(MUTANT_NO_TRUNCATION)
  j = log_end[node];
#elif defined(MUTANT_TRUNCATE_TO_WATERMARK)
  j = watermark[node];
#else
  common_end(leader, node);
#endif
  assert(j >= watermark[node]); /* nothing below the high watermark is ever cut */
  i = j;
  do
  :: i < log_end[node] -> LOG(node, i) = 0; i++
  :: else -> break
  od;
  log_end[node] = j;
  synced[node] = MIN(synced[node], j);
  i = 1;
  do
  :: i <= EPOCHS -> START(node, i) = START(leader, i); i++
  :: else -> break
  od;
  i = 0;
  role[node] = FOLLOWER;
  role_epoch[node] = role_epoch[leader];
  follows[node] = 1;
  ack_end[node] = (SYNCED -> synced[node] : j) + 1;
  stream[OF(leader, node)] = 1;
  streaming[OF(leader, node)] = 0;
  stream_life[OF(leader, node)] = LIFE(node);
#ifndef MUTANT_FIGURES_KEPT
  end_of[OF(leader, node)] = 0; /* what it had in another stream it may have lost */
#endif
  j = 0
}

/* FollowingPartition::on_frames, ReplicaWriter::append */
inline take_frame(node) {
  LOG(node, log_end[node]) = SHIPPED(role_epoch[node], log_end[node]);
  log_end[node]++;
  ack_end[node] = (SYNCED -> synced[node] : log_end[node]) + 1
}

#define CAN_TAKE_FRAME(node) \
  (role[node] == FOLLOWER && follows[node] && log_end[node] < shipped_end[role_epoch[node] - 1])
#define TOLD_WATERMARK(node) MIN(shipped_watermark[role_epoch[node] - 1], log_end[node])
#define CAN_RAISE_WATERMARK(node) (role[node] == FOLLOWER && follows[node] && TOLD_WATERMARK(node) > watermark[node])

/* --- Steps that any node takes ------------------------------------------------------------------------ */

/* Node::on_state, Replica::set_record */
inline take_record(node) {
  seen_leader[node] = record_leader;
  seen_incarnation[node] = record_incarnation;
  seen_epoch[node] = record_epoch;
  seen_isr[node] = record_isr;
  seen_life[node] = record_life;
  seen_revision[node] = record_revision;
  await_record[node] = 0;
  proposed[node] = 0; /* was made from an earlier revision: is in this one, or never will be */
  if
  :: role[node] == LEADER && record_leader == node && record_epoch == role_epoch[node] ->
     isr[node] = record_isr; /* LeaderProgress::confirm */
     update_watermark(node)
  :: else ->
     if
     :: role[node] != FENCED && record_epoch != role_epoch[node] -> fence(node)
     :: else
     fi
  fi
}

/* EtcdCoordinator::commit, at etcd */
inline make_commit(at, author) {
  if
#ifdef MUTANT_NO_COMPARE
  :: record_epoch == seen_epoch[author] || record_epoch != seen_epoch[author] ->
#else
  :: commit_base[at] == record_revision ->
#endif
     record_isr = commit_isr[at];
     record_life = commit_life[at];
     record_revision++
  :: else
  fi;
  commit_going[at] = 0; commit_isr[at] = 0; commit_life[at] = 0; commit_base[at] = 0
}

/* placement.cc: in_sync, can_lead */
#ifdef MUTANT_ELECTION_OUTSIDE_ISR
#define MAY_LEAD(node) 1
#elif defined(MUTANT_ELECTION_IN_ANOTHER_LIFE)
#define MAY_LEAD(node) HAS(record_isr, node)
#else
#define MAY_LEAD(node) (HAS(record_isr, node) && (SYNCED || HAS(record_life, node) == LIFE(node)))
#endif

/* placement.cc: elect, led_by; who has begun another life goes. Node::commit_elections */
inline elect(node) {
  record_leader = node;
  record_incarnation = incarnation[node];
  record_epoch++;
  i = 0;
  do
  :: i < NODES ->
     if
     :: i != node && !SYNCED && HAS(record_life, i) != LIFE(i) ->
        record_isr = record_isr & ~BIT(i);
        record_life = record_life & ~BIT(i)
     :: else
     fi;
     i++
  :: else -> break
  od;
  i = 0;
  record_isr = record_isr | BIT(node);
  record_life = (record_life & ~BIT(node)) | (LIFE(node) << (node));
  record_revision++
}

/* The host loses what was in memory; its daemon begins anew. */
inline crash(node) {
  g_crashes--;
  fence(node);
  i = synced[node];
  do
  :: i < log_end[node] -> LOG(node, i) = 0; i++
  :: else -> break
  od;
  i = 0;
  log_end[node] = synced[node];
  watermark[node] = 0; /* PartitionKeeper::begin_replicated */
#if !SYNCED
  life = life ^ BIT(node);
#endif
  incarnation[node] = 1 - incarnation[node];
  no_lease[node] = 0;
  await_record[node] = 0;
  proposed[node] = 0;
  if /* what its daemon had asked for may yet be made */
  :: commit_going[node] && !commit_going[NODES] ->
     commit_going[NODES] = 1; commit_isr[NODES] = commit_isr[node]; commit_life[NODES] = commit_life[node];
     commit_base[NODES] = commit_base[node]; commit_author = node
  :: else
  fi;
  commit_going[node] = 0; commit_isr[node] = 0; commit_life[node] = 0; commit_base[node] = 0
}

/* --- Each node ---------------------------------------------------------------------------------------- */

#define IS_LEADING(node) (role[node] == LEADER)
#define MAY_PROPOSE(node) \
  (IS_LEADING(node) && g_changes > 0 && !commit_going[node] && !await_record[node] && !no_lease[node])

#define STEPS_TOWARDS(n, m)                                                                                               \
  :: atomic { /* ask and start */                                                                                         \
       n != m && role[n] != LEADER && !follows[n] && seen_leader[n] == m && IS_LEADING(m) &&                              \
         role_epoch[m] == seen_epoch[n] && (role[n] == FENCED || role_epoch[n] == seen_epoch[n]) ->                       \
       follow(n, m)                                                                                                       \
     }                                                                                                                    \
  :: atomic { /* on_ack */                                                                                                \
       n != m && IS_LEADING(n) && stream[OF(n, m)] && ack_end[m] != 0 && role_epoch[m] == role_epoch[n] -> take_ack(n, m) \
     }                                                                                                                    \
  :: atomic { /* ISR: m leaves */                                                                                         \
       n != m && MAY_PROPOSE(n) && HAS(isr[n], m) -> set = isr[n] & ~BIT(m); propose(n)                                   \
     }                                                                                                                    \
  :: atomic { /* ISR: m comes */                                                                                          \
       n != m && MAY_PROPOSE(n) && CAUGHT_UP(n, m) -> set = isr[n] | BIT(m); propose(n)                                   \
     }                                                                                                                    \
  :: atomic { /* a connection is lost, and both notice: end_stream, on_link_down */                                       \
       n != m && g_cuts > 0 && IS_LEADING(n) && stream[OF(n, m)] ->                                                       \
       g_cuts--;                                                                                                          \
       stream[OF(n, m)] = 0; streaming[OF(n, m)] = 0;                                                                     \
       if                                                                                                                 \
       :: role[m] == FOLLOWER && role_epoch[m] == role_epoch[n] -> follows[m] = 0; ack_end[m] = 0                         \
       :: else                                                                                                            \
       fi                                                                                                                 \
     }                                                                                                                    \
  :: atomic { /* Replica::hand_over, step_hand_over: fenced, shipped, put into the record */                              \
       n != m && g_hand_overs > 0 && IS_LEADING(n) && !commit_going[n] && !await_record[n] &&                             \
         seen_revision[n] == record_revision && record_epoch < EPOCHS && HAS(record_isr, m) &&                            \
         MAY_LEAD(m) && streaming[OF(n, m)] && end_of[OF(n, m)] >= log_end[n] ->                                          \
       g_hand_overs--;                                                                                                    \
       assert(log_end[m] >= log_end[n]); /* nothing that was appended is lost */                                          \
       elect(m);                                                                                                          \
       await_record[n] = 1;                                                                                               \
       fence(n)                                                                                                           \
     }

proctype Node(byte n) {
end:
  do
  :: atomic { seen_revision[n] != record_revision -> take_record(n) }
  :: atomic { /* placement.cc: is_led; Replica::ask_fence, ask_lead */
       role[n] == FENCED && seen_leader[n] == n && seen_incarnation[n] == incarnation[n] && !no_lease[n] ->
       lead(n)
     }
  :: atomic { IS_LEADING(n) && records < RECORDS && log_end[n] < RECORDS && !no_lease[n] -> append(n) }
  :: atomic { CAN_TAKE_FRAME(n) -> take_frame(n) }
  :: atomic { CAN_RAISE_WATERMARK(n) -> j = TOLD_WATERMARK(n); set_watermark(n, j); j = 0 } /* raise_watermark */
  :: atomic { /* PartitionKeeper::publish_durable */
       (SYNCED || CRASHES) && synced[n] < log_end[n] ->
       synced[n] = log_end[n];
       if
       :: SYNCED && role[n] == FOLLOWER && follows[n] -> ack_end[n] = synced[n] + 1
       :: SYNCED && role[n] == LEADER -> update_watermark(n)
       :: else
       fi
     }
  :: atomic { /* Node::hold_elections */
       record_epoch < EPOCHS && seen_revision[n] == record_revision && !no_lease[n] && MAY_LEAD(n) &&
         !IS_LEADING(n) ->
       elect(n)
     }
  :: atomic { /* the outcome of a commit is told: Replica::on_committed */
       commit_going[n] && !no_lease[n] ->
       make_commit(n, n);
       await_record[n] = (seen_revision[n] == record_revision -> 0 : 1)
     }
  :: atomic { /* it is not */
       g_unknown > 0 && commit_going[n] && !commit_going[NODES] ->
       g_unknown--;
       commit_going[NODES] = 1; commit_isr[NODES] = commit_isr[n]; commit_life[NODES] = commit_life[n];
       commit_base[NODES] = commit_base[n]; commit_author = n;
       commit_going[n] = 0; commit_isr[n] = 0; commit_life[n] = 0; commit_base[n] = 0
     }
  :: atomic { commit_going[NODES] && commit_author == n -> make_commit(NODES, n) } /* and yet it is made, or refused */
  :: atomic { g_flaps > 0 && IS_LEADING(n) && !no_lease[n] -> g_flaps--; no_lease[n] = 1 }
  :: atomic { no_lease[n] && IS_LEADING(n) -> fence(n) } /* PartitionKeeper::step_role */
  :: atomic { no_lease[n] -> no_lease[n] = 0 }           /* the keep-alive was answered after all */
  :: atomic { g_crashes > 0 -> crash(n) }
  STEPS_TOWARDS(n, 0)
  STEPS_TOWARDS(n, 1)
  STEPS_TOWARDS(n, 2)
  od
}

/* --- Producers, one a record ---------------------------------------------------------------------------- */

/* Appender::still_leads */
#ifdef MUTANT_ACK_WITHOUT_EPOCH
#define STILL_LEADS(r) 1
#else
#define STILL_LEADS(r) \
  (role[appended_at[r]] == LEADER && role_epoch[appended_at[r]] == appended_epoch[r] && !no_lease[appended_at[r]])
#endif
#define WATERMARK_IS_BEHIND(r) (watermark[appended_at[r]] > appended_offset[r])

inline acknowledge(r) {
  acknowledged[r] = 1;
  j = 0;
  do
  :: j < NODES ->
     if
     :: role[j] == LEADER -> check_acknowledged(j)
     :: else
     fi;
     j++
  :: else -> break
  od;
  j = 0
}

#ifdef MUTANT_LEADER_BEFORE_WATERMARK
#define WAIT_REPLICATED(r)                                                                                    \
  :: atomic { r < records && !led[r] && STILL_LEADS(r) -> led[r] = 1 }                                        \
  :: atomic { r < records && led[r] && !acknowledged[r] && WATERMARK_IS_BEHIND(r) -> acknowledge(r) }
#else
#define WAIT_REPLICATED(r) /* Appender::wait_replicated: first the watermark, then whether it is still of use */ \
  :: atomic { r < records && !covered[r] && WATERMARK_IS_BEHIND(r) -> covered[r] = 1 }                        \
  :: atomic { r < records && covered[r] && !acknowledged[r] && STILL_LEADS(r) -> acknowledge(r) }
#endif

proctype Producers() {
end:
  do
  WAIT_REPLICATED(0)
#if RECORDS > 1
  WAIT_REPLICATED(1)
#endif
#if RECORDS > 2
  WAIT_REPLICATED(2)
#endif
  od
}

init {
  atomic {
    role[0] = LEADER; role_epoch[0] = 1; isr[0] = IN_SYNC; g_led_by[0] = 1;
    START(0, 1) = 1; START(1, 1) = 1; START(2, 1) = 1;
    role[1] = FOLLOWER; role_epoch[1] = 1; follows[1] = 1; stream[OF(0, 1)] = 1; streaming[OF(0, 1)] = 1;
    role[2] = FOLLOWER; role_epoch[2] = 1; follows[2] = 1; stream[OF(0, 2)] = 1; streaming[OF(0, 2)] = 1;
    run Node(0);
    run Node(1);
    run Node(2);
    run Producers()
  }
}
