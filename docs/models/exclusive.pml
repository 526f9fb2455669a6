/* A ring that one producer has for himself: grant, plain commit, hand-over, give-up, seal.
 *
 * Stands for src/log/{appender_alone,partition_exclusive,partition_role,partition_retire,partition_repair,ring,
 * ring_keeper,partition_reader,partition_seek}.cc, src/log/appender.h, src/client/consumer_core.cc and
 * src/shm/light_fence.h. Each step has the function it stands for beside it. What is left out, and how to read a
 * counterexample: README.md.
 *
 * The owner's processor keeps x86's order (TSO): what he stores goes through a buffer, oldest first, and he may load
 * before that is visible. A light fence is nothing here. Who waits for shm::kVisibleNs waits until the buffer is
 * empty. What all others store is visible at once: they have a locked instruction or such a wait behind it, before
 * they look at anything that the owner stores.
 *
 * Each frame is one unit long and has one offset, so positions are offsets. Variables that begin with g_ are ghosts.
 */

#ifndef APPENDS
#define APPENDS 2 /* of the owner */
#endif
#ifndef BUFFER
#define BUFFER 5 /* stores that his processor holds back */
#endif
#ifndef BATCHES
#define BATCHES 0 /* 1: an append may have two frames */
#endif
#ifndef IN_PLACE
#define IN_PLACE 0 /* 1: records may be written in place (try_claim), and aborted by the owner */
#endif
#ifndef TAKES
#define TAKES 1 /* how often the ring is taken from its owner, though he lives */
#endif
#ifndef OTHERS
#define OTHERS 1 /* records that others append where the ring is not the owner's */
#endif
#ifndef GIVE_UPS
#define GIVE_UPS 0 /* 1: an append may be given up, at any step: the one of a stopped owner is */
#endif
#ifndef DEATHS
#define DEATHS 0 /* 1: the owner may die, at any step */
#endif
#ifndef KEEPER_DEATHS
#define KEEPER_DEATHS 0 /* keepers that may die, at any step; the next one begins at once */
#endif
#ifndef SEEKS
#define SEEKS 0 /* 1: the consumer begins at the log's end, whenever it asks for it */
#endif

#define RINGS 2 /* the second takes the place of the first; it is not replaced */
#define UNITS (APPENDS * (1 + BATCHES) + OTHERS + 1) /* the last one stays empty */
#define FRAMES (RINGS * UNITS)
#define RECORDS (APPENDS + OTHERS + 1)
#define FRAME(ring, position) ((ring) * UNITS + (position))

/* --- Shared memory ------------------------------------------------------------------------------ */

#define COMMITTED 1
#define ABORTED 2
byte word[FRAMES];  /* the state word; 0: nothing is there */
byte value[FRAMES]; /* the rest of the frame: PART of a record */
#define PART(record, part) ((record) * 2 + (part))
#define RECORD(seen) ((seen) / 2)

byte tail[RINGS];  /* TermLine::fenced of the active term */
byte grant[RINGS]; /* how often it was given; below it, a bit: whether that lasts */
bit sealed[RINGS], scribbled[RINGS]; /* Scribbled::by_owner */
byte sealed_position[RINGS];
byte generation; /* the ring that appends go to */
bit open_to_all; /* its owner is dead, and nobody else wants it for himself */

#define HAS_OWNER(ring) ((grant[ring] & 1) == 1)
#define ENDED(grant) ((grant) & 254) /* ended_grant */
#ifdef MUTANT_GRANT_RECURS
#define NEXT_GRANT(grant) ((grant) | 1)
#else
#define NEXT_GRANT(grant) (((grant) & 254) + 3) /* next_grant */
#endif

/* The owner's slot: a sequence, and below it whether he is within an append. */
byte op, given_up;
#define CLAIMING(sequence) ((sequence) * 2 + 1)
#define IDLE(sequence) ((sequence) * 2)

bit hot;   /* kDataWaiter */
bit woken; /* data_seq is another than the sleeper has seen */

/* --- The owner's processor ------------------------------------------------------------------------ */

/* What is stored, where, and the value. */
#define OP 0
#define BODY 1  /* of a frame; nobody looks at it before the state word */
#define BATCH 2 /* of two; the second has its state word */
#define WORD 3
#define TAIL 4
chan buffer = [BUFFER] of { byte, byte, byte };

#define WAIT_UNTIL_VISIBLE (empty(buffer)) /* shm::kVisibleNs */

/* --- Ghosts ------------------------------------------------------------------------------------- */

#define KEPT 1
#define REFUSED 2
byte g_told[RECORDS], g_at[RECORDS]; /* what the caller was told, and the record's position */
byte g_log[UNITS];                   /* what the frontier has passed */
byte g_read[UNITS], g_read_end;      /* what the consumer has taken, and how far it is */
byte g_turn[RINGS], g_turn_mine;     /* how often the ring was given on; the owner's turn, as he last saw it */
bit g_dies, g_keeper_dies;
byte g_takes = TAKES, g_others = OTHERS, g_give_ups = GIVE_UPS, g_deaths = DEATHS, g_keeper_deaths = KEEPER_DEATHS;

proctype Processor() {
  byte variable, where, stored;
end:
  do
  :: atomic {
       buffer?variable,where,stored ->
       if
       :: variable == OP -> op = stored
       :: variable == BODY -> value[where] = stored
       :: variable == BATCH ->
          value[where] = stored;
          value[where + 1] = stored + 1;
          word[where + 1] = COMMITTED
       :: variable == WORD -> word[where] = stored
       :: variable == TAIL -> tail[where] = stored
       fi;
       /* Nothing is stored into a ring that was given on. */
       assert(variable == OP || g_turn[(variable == TAIL -> where : where / UNITS)] == g_turn_mine);
       variable = 0; where = 0; stored = 0
     }
  od
}

/* --- The owner ------------------------------------------------------------------------------------ */

/* What the caller is told of `record`, which stands at `at`. */
inline tell(record, outcome) {
  g_told[record] = outcome;
  assert(outcome != KEPT || g_log[at] == PART(record, 0) || (g_log[at] == 0 && !sealed[ring]));
  assert(outcome != REFUSED || g_log[at] != PART(record, 0))
}

proctype Owner() {
  byte ring, mine, at, used, record, frames, sequence;
  bit kept, aborts;
  {
    skip;
wait: /* Appender::wait_for_grant: a full barrier, then a look at the newest ring */
    atomic {
      empty(buffer) && HAS_OWNER(generation);
      ring = generation;
      mine = grant[ring];
      g_turn_mine = g_turn[ring]
    }
    used = tail[ring]; /* Appender::adopt_alone */
    do
    :: record < APPENDS ->
       /* ANNOUNCE: Appender::announce_alone. The look at the grant may come before it is visible. */
       atomic { buffer!OP,0,CLAIMING(sequence + 1); sequence++ }
       if /* Appender::has_grant */
       :: grant[ring] != mine -> /* Appender::take_alone_slowly */
          buffer!OP,0,IDLE(sequence);
          goto wait
       :: atomic {
            grant[ring] == mine ->
            at = used; /* Appender::place_alone */
            record++;
            g_at[record] = at
          }
       fi;
       if /* Appender::append_as, append_batch_as, claim_as */
       :: atomic { buffer!BODY,FRAME(ring, at),PART(record, 0); frames = 1 }
#if BATCHES
       :: atomic { buffer!BATCH,FRAME(ring, at),PART(record, 0); frames = 2 }
#endif
#if IN_PLACE
       :: atomic { buffer!BODY,FRAME(ring, at),PART(record, 0); frames = 1; aborts = 1 } /* Appender::abort */
#endif
       fi;
       /* COMMIT: Appender::commit_alone. The looks at given_up and hot may come before it is visible. */
       buffer!WORD,FRAME(ring, at),(aborts -> ABORTED : COMMITTED);
       atomic { buffer!TAIL,ring,(used + frames); used = used + frames }
       if /* OwnedSlot::given_up */
       :: atomic { given_up != CLAIMING(sequence) -> kept = 1 }
       :: atomic { /* Appender::was_kept_alone */
            given_up == CLAIMING(sequence) && sealed[ring] ->
            kept = (at < sealed_position[ring])
          }
       fi;
       atomic {
         if
         :: aborts
         :: !aborts && kept -> tell(record, KEPT)
         :: !aborts && !kept -> tell(record, REFUSED)
         fi
       }
       buffer!OP,0,IDLE(sequence); /* OwnedSlot::finish */
       if /* WAKE: Appender::notify */
       :: kept && hot -> atomic { empty(buffer); hot = 0; woken = 1 } /* notify_slowly: locked instructions */
       :: else
       fi;
       atomic { at = 0; frames = 0; kept = 0; aborts = 0 }
    :: else -> break
    od
  } unless {
    atomic { /* dead; what he knew is gone, but for what is in the buffer */
      g_dies;
      ring = 0; mine = 0; at = 0; used = 0; record = 0; frames = 0; sequence = 0; kept = 0; aborts = 0
    }
  }
}

/* --- A consumer ----------------------------------------------------------------------------------- */

inline take() {
  assert(!(sealed[ring] && at >= sealed_position[ring])); /* what is behind the seal is no record */
  assert(g_log[at] == 0 || g_log[at] == seen);            /* nor do two stand at one position */
  assert((seen & 1) == 0 || (at > 0 && (g_read[at - 1] == seen - 1 || g_read[at - 1] == 0)));
  g_read[at] = seen;
  at++;
  g_read_end = at
}

#define LEFT_RING (sealed[ring] && at >= sealed_position[ring]) /* PartitionReader::left_ring */

proctype Consumer() {
  byte ring, at, limit, seen;
  bit doubtful;
#if SEEKS
  /* SEEK: PartitionReader::log_end, Ring::exact_end: as in READ */
seek:
  atomic {
    ring = generation;
    if
    :: sealed[ring] -> at = sealed_position[ring]; g_read_end = at; goto look
    :: else
    fi
  }
  at = tail[ring];
  atomic {
    if
#ifndef MUTANT_END_NOT_DOUBTED
    :: scribbled[ring] -> at = 0; goto seek
    :: !scribbled[ring] -> g_read_end = at
#else
    :: g_read_end = at
#endif
    fi;
    assert(!sealed[ring] || at <= sealed_position[ring])
  }
#endif
look: /* PartitionReader::poll_ring */
  atomic {
    seen = 0;
#ifndef MUTANT_NO_DOUBT
    doubtful = scribbled[ring];
#endif
    limit = (!doubtful -> UNITS : (sealed[ring] -> sealed_position[ring] : at))
  }
  atomic { /* READ: PartitionReader::take_surely: the state word, then whether the ring is in doubt */
    if
    :: at < limit && word[FRAME(ring, at)] != 0 -> seen = value[FRAME(ring, at)]
    :: else
    fi
  }
  atomic {
    if
    :: seen != 0 ->
       if
#ifndef MUTANT_NO_DOUBT
       :: !doubtful && scribbled[ring] /* nothing is taken */
#endif
       :: else -> take(); goto look
       fi
    :: else
    fi;
    seen = 0; limit = 0; doubtful = 0
  }
  if
  :: atomic { LEFT_RING && generation != ring -> ring = generation; goto look }
  :: !LEFT_RING
  fi;
  /* ConsumerCore::sleep */
  atomic { woken = 0; hot = 1 }
#ifndef MUTANT_NO_WAIT_BEFORE_SLEEP
  WAIT_UNTIL_VISIBLE;
#endif
  if /* PartitionReader::has_data */
  :: word[FRAME(ring, at)] != 0 || LEFT_RING -> goto look
  :: else
  fi;
  if
  :: woken -> goto look
  :: timeout -> assert(ring == generation && word[FRAME(ring, at)] == 0) /* there is nothing to wake it for */
  fi
}

/* --- The keeper ----------------------------------------------------------------------------------- */

byte frontier;  /* where the files end: what it has passed counts as synced */
byte draining;  /* the ring in which it stands */

/* PartitionKeeper::for_each_at_work */
#define RESTS (g_dies || (op & 1) == 0 || given_up == op)

#ifdef MUTANT_SCAN_UNBOUNDED
#define BEHIND_SEAL 0
#else
#define BEHIND_SEAL (scribbled[draining] && sealed[draining] && frontier >= sealed_position[draining])
#endif

/* Whether an aborted frame can be passed. The owner's own tells what it uses up. */
#ifdef MUTANT_ABORTED_WAITS
#define PASSABLE \
  (word[FRAME(draining, frontier)] != ABORTED || !scribbled[draining] || word[FRAME(draining, frontier + 1)] != 0 || \
   frontier + 1 == (sealed[draining] -> sealed_position[draining] : tail[draining]))
#else
#define PASSABLE 1
#endif

/* RingKeeper::scan, PartitionKeeper::walk_to_end: in one go, for only the last look tells where it ends. */
inline walk() {
  do
  :: word[FRAME(draining, frontier)] != 0 && !BEHIND_SEAL && PASSABLE ->
     seen = value[FRAME(draining, frontier)];
     assert(seen != 0);
     assert(g_told[RECORD(seen)] != REFUSED);
     assert((seen & 1) == 0 || (frontier > 0 && g_log[frontier - 1] == seen - 1));
     assert(g_read[frontier] == 0 || g_read[frontier] == seen);
     g_log[frontier] = seen;
     frontier++
  :: else -> break
  od;
  seen = 0
}

/* PartitionKeeper::flush, drop_drained_ring: the old ring is looked through once more. */
inline drop() {
  walk();
  assert(frontier == sealed_position[draining]);
  draining = generation
}

/* The end is fixed: all that was told, and all that was read, is before it. */
inline check_end() {
  assert(g_read_end <= frontier);
  seen = 1;
  do
  :: seen <= APPENDS -> assert(g_told[seen] != KEPT || g_log[g_at[seen]] == PART(seen, 0)); seen++
  :: else -> break
  od;
  seen = 0
}

/* Whether a keeper may give on the ring that the one before it had fenced. If its owner was given up, he may store
 * into it still; if it is sealed, it has ended. */
#if defined(MUTANT_NEXT_KEEPER_SETTLES)
#define MAY_SETTLE (!sealed[generation])
#elif defined(MUTANT_NEXT_KEEPER_UNSEALS)
#define MAY_SETTLE (!scribbled[generation])
#else
#define MAY_SETTLE (!scribbled[generation] && !sealed[generation])
#endif

#define MAY_DIE (g_deaths > 0 && empty(buffer)) /* what he had in the buffer is visible then */

#if KEEPER_DEATHS > 0
/* As in ring.pml. */
proctype KeeperKiller() {
end:
  do
  :: atomic { g_keeper_deaths > 0 && !g_keeper_dies -> g_keeper_dies = 1; g_keeper_deaths-- }
  od
}
#endif

proctype Keeper() {
  byte seen;
  bit retiring;
#if KEEPER_DEATHS > 0
again:
  skip;
  {
    if /* PartitionKeeper::recover */
    :: HAS_OWNER(generation) || open_to_all
    :: atomic { /* begin_retire */
         !HAS_OWNER(generation) && !open_to_all && generation == 0 ->
         retiring = 1;
         goto fence
       }
    :: atomic { !HAS_OWNER(generation) && !open_to_all && MAY_SETTLE -> goto fence } /* begin_replicated, settle */
    fi;
#endif
end_idle:
    if
    :: atomic { draining != generation -> drop() }
       goto end_idle
    :: atomic { HAS_OWNER(generation) && g_takes > 0 -> g_takes-- }
#if DEATHS > 0
    :: atomic { /* An owner who has died is one who makes no step until the keeper sees it: so he dies there. */
         HAS_OWNER(generation) && MAY_DIE ->
         g_deaths--;
         g_dies = 1
       }
#endif
    fi;

fence: /* Ring::fence */
    grant[generation] = ENDED(grant[generation]);
#ifndef MUTANT_NO_WAIT_AT_FENCE
    WAIT_UNTIL_VISIBLE;
#endif
rest: /* PartitionKeeper::owner_rests */
    if
    :: RESTS
#if DEATHS > 0
    :: atomic { !RESTS && MAY_DIE -> g_deaths--; g_dies = 1 }
#endif
#if GIVE_UPS > 0
    /* GIVE_UP: PartitionKeeper::on_slot_stuck */
    :: atomic {
         !RESTS && generation == 0 && (g_give_ups > 0 || scribbled[0]) ->
         g_give_ups = 0;
         seen = op;
#ifndef MUTANT_MARK_AFTER_WALK
         scribbled[0] = 1
#endif
       }
       atomic { given_up = seen; seen = 0; retiring = 1 }
#ifndef MUTANT_NO_WAIT_AT_GIVE_UP
       WAIT_UNTIL_VISIBLE;
#endif
       goto rest
#endif
    fi;
    atomic {
      if
      :: draining != generation -> drop()
      :: else
      fi
    }
    atomic { walk() }
    if
    :: retiring || generation == 0 -> /* PartitionKeeper::step_retire, end_to_seal: also because a reader holds space */
#ifdef MUTANT_MARK_AFTER_WALK
       scribbled[0] = retiring;
#endif
       atomic { /* Ring::finish_seal */
         assert(!sealed[0] || sealed_position[0] == frontier);
         check_end();
         sealed_position[0] = frontier;
         sealed[0] = 1
       }
       atomic { tail[1] = frontier; generation = 1 } /* PartitionKeeper::replace_ring */
    :: !retiring -> /* PartitionKeeper::come_to_rest */
       atomic {
         check_end();
         g_turn[generation]++;
#ifndef MUTANT_NO_CLEAR
         seen = frontier;
         do /* Ring::clear_behind */
         :: seen < UNITS -> word[FRAME(generation, seen)] = 0; value[FRAME(generation, seen)] = 0; seen++
         :: else -> break
         od;
         seen = 0;
#endif
         tail[generation] = frontier
       }
    fi;
    if
    :: skip
    :: atomic { /* others append meanwhile: claimers, or another host that leads (ReplicaWriter::publish) */
         g_others > 0 ->
         seen = FRAME(generation, tail[generation]);
         value[seen] = PART(APPENDS + g_others, 0);
         word[seen] = COMMITTED;
         seen = 0;
         tail[generation]++;
         g_others--;
         if
         :: hot -> hot = 0; woken = 1
         :: else
         fi
       }
    fi;
    atomic { /* PartitionKeeper::step_exclusive: Ring::own, unfence */
      if
      :: !g_dies -> grant[generation] = NEXT_GRANT(grant[generation])
      :: else -> open_to_all = 1
      fi;
      retiring = 0
    }
    woken = 1; /* PartitionKeeper::notify_all */
    goto end_idle
#if KEEPER_DEATHS > 0
  } unless {
    atomic { /* the next keeper: what the last one knew is gone */
      g_keeper_dies -> g_keeper_dies = 0;
      seen = 0; retiring = 0;
      woken = 1; /* PartitionKeeper::open */
      goto again
    }
  }
#endif
}

/* --- The whole ------------------------------------------------------------------------------------ */

init {
  atomic {
    given_up = 255;
    grant[0] = NEXT_GRANT(0);
    run Keeper();
    run Owner();
    run Processor();
    run Consumer();
#if KEEPER_DEATHS > 0
    run KeeperKiller();
#endif
  }
}
