/* The ring of one partition: claim, commit, abort, rotate, repair, give-up, recycle, retire.
 *
 * Stands for src/log/{ring,appender,appender_claim,ring_keeper,partition_repair,partition_retire}.cc. Each step has
 * the function it stands for beside it. A step is one access to shared memory, or several of which nobody can tell
 * the difference. What is left out, and how to read a counterexample: README.md.
 *
 * Bytes are units of one frame header; every record is one unit long. A term has TERM_USABLE of them and one for
 * its pad. Variables that begin with g_ are ghosts: the code has nothing like them, the properties are said in them.
 */

#ifndef PRODUCERS
#define PRODUCERS 2 /* at most 3 */
#endif
#ifndef APPENDS
#define APPENDS 2 /* of the first producer */
#endif
#ifndef APPENDS_OTHERS
#define APPENDS_OTHERS 1 /* of each of the others; not more */
#endif
#ifndef TERMS
#define TERMS 2 /* of a ring */
#endif
#ifndef TERM_USABLE
#define TERM_USABLE 2
#endif
#ifndef DEATHS
#define DEATHS 0 /* producers that may die, at any step */
#endif
#ifndef GIVE_UPS
#define GIVE_UPS 0 /* claims that may be given up, at any step: the one of a stopped producer is */
#endif
#ifndef KEEPER_DEATHS
#define KEEPER_DEATHS 0 /* keepers that may die, at any step; the next one begins at once */
#endif
#ifndef INQUIRIES
#define INQUIRIES 1 /* that are held although nobody has died or stands still */
#endif
#ifndef IN_PLACE
#define IN_PLACE 0 /* 1: records may be written in place (try_claim), and aborted by their owners */
#endif
#ifndef READERS
#define READERS 0 /* 1: a reader pins the ring's oldest frames */
#endif

#ifndef NEXT_RING
#define NEXT_RING 1 /* 0: it cannot be made, so nothing is retired; who was given up waits for the keeper's word */
#endif

#if GIVE_UPS > 0 && NEXT_RING
#define RINGS 2
#else
#define RINGS 1
#endif
#define TERM (TERM_USABLE + 1)
#define FRAMES (RINGS * TERMS * TERM)
#define LINES (RINGS * TERMS)
#define RECORDS (PRODUCERS * APPENDS + 1)
#define NONE 255

/* --- What a state word says: src/format/frame.h ------------------------------------------------- */

#define CLAIMED 32    /* low half: length negative */
#define KIND_DATA 0   /* high half */
#define KIND_PAD 1
#define KIND_SEIZED 2 /* the keeper is about to fill it; not resolved, and no commit fits */
#define KIND_ABORTED 16 /* with the extent */
#define KEY_LENGTH 9  /* of every record; a filler has its number of records in its place */

/* --- Shared memory ------------------------------------------------------------------------------ */

byte low[FRAMES], high[FRAMES]; /* the state word's halves */
byte offset_of[FRAMES];         /* plus one; 0: not written */
byte key_length[FRAMES];
byte owner[FRAMES];             /* slot plus one */
byte value[FRAMES];             /* which record was written here */

bit tail_fence[LINES];
byte tail_lap[LINES], tail_records[LINES], tail_bytes[LINES];
bit fenced_known[LINES];
byte fenced_records[LINES], fenced_bytes[LINES]; /* TermLine::fenced */
byte end_lap[LINES], end_records[LINES], end_bytes[LINES];
byte number[LINES], base_offset[LINES];

byte active_term[RINGS], term_limit[RINGS];
byte head; /* in terms; of the ring that readers look at */
bit sealed[RINGS], scribbled[RINGS];
byte sealed_position[RINGS], sealed_offset[RINGS];
byte ring_generation; /* the ring that claims go to */

/* Slots: a sequence, and below it a phase. Here it comes round, after as many steps as nobody sleeps through: who
 * takes a later operation for the one he waits for waits longer. Of one that is given up it must not recur. */
#if GIVE_UPS > 0
#define SEQUENCES 32
#else
#define SEQUENCES 4
#endif
#define IDLE 0
#define CLAIMING 1
#define OPEN 2
#define HELPING 3
byte op[PRODUCERS], open_position[PRODUCERS];
byte given_up[PRODUCERS], given_up_done[PRODUCERS];
bit slot_dead[PRODUCERS]; /* the keeper has seen that its lock is gone */
byte pin = NONE;          /* of the reader, in terms */

#define FRAME(ring, term, at) ((ring) * TERMS * TERM + ((term) % TERMS) * TERM + (at))
#define LINE(ring, term) ((ring) * TERMS + (term) % TERMS)
#define LAP(term) ((term) / TERMS + 1)
#define PHASE(word) ((word) & 3)
#define ANNOUNCE(phase) op[p] = (((op[p] >> 2) + 1) % SEQUENCES) << 2 | (phase)
#define SAME_CLAIM(a, b) ((a) >> 2 == (b) >> 2) /* shm::is_same_claim */
#define FINISH op[p] = op[p] & ~3
#define RESOLVED(f) ((low[f] > 0 && low[f] < CLAIMED && high[f] < KIND_SEIZED) || high[f] >= KIND_ABORTED)
#define EXTENT(f) (high[f] >= KIND_ABORTED -> high[f] - KIND_ABORTED : low[f])
#define IS_GIVEN_UP(i) SAME_CLAIM(op[i], given_up[i]) /* RingKeeper::is_given_up */

/* --- Ghosts ------------------------------------------------------------------------------------- */

#define OWNER_OF(record) (((record) - 1) / APPENDS)
bit g_dies[PRODUCERS];      /* it is dead; the kernel drops the slot's lock */
byte g_current[PRODUCERS];  /* the record it is at; 0: none */
byte g_claimed[FRAMES];     /* whose unit it is, from the claim until the term is zeroed */
byte g_offset[RECORDS];     /* plus one, from the claim on */
bit g_given_up[RECORDS];
bit g_passed[RECORDS];      /* the frontier is behind it: it is a record of the log */
byte g_told[RECORDS];       /* what its producer was told */
#define KEPT 1
#define REFUSED 2
byte g_inquiries = INQUIRIES, g_deaths = DEATHS, g_give_ups = GIVE_UPS, g_keeper_deaths = KEEPER_DEATHS;
bit g_keeper_dies;

/* --- The keeper's frontier -------------------------------------------------------------------------- */

/* RingKeeper and PartitionKeeper: private, and gone with the process. `frontier_*` is where the files end: what the
 * frontier has passed counts as synced. */
byte draining, frontier_term, frontier_at, frontier_offset;
bit inquiring[RINGS];
byte inquiry_term[RINGS], inquiry_records[RINGS], inquiry_bytes[RINGS];
byte waiting_for[RINGS * PRODUCERS];
bit dead_slot[PRODUCERS], settling_dead[PRODUCERS];
bit owed[PRODUCERS], settling_owed[PRODUCERS]; /* PartitionKeeper::given_up_; all of ring 0 */
byte grace_term = NONE, grace_ops[PRODUCERS];
byte retiring; /* PartitionKeeper::Retire */
#define PREPARING 1
#define FENCED 2

#define POSITION(term, at) ((term) * TERM + (at))
#define FRONTIER POSITION(frontier_term, frontier_at)
#define FRONTIER_FRAME FRAME(draining, frontier_term, frontier_at)
#define CURRENT ring_generation

/* RingKeeper::scribbled_records: what follows the aborted frame at the frontier. */
#define SCRIBBLED (scribbled[draining] && high[FRONTIER_FRAME] >= KIND_ABORTED)
#define BEHIND (FRONTIER_FRAME + EXTENT(FRONTIER_FRAME))
#define AT_SEAL (sealed[draining] && FRONTIER + EXTENT(FRONTIER_FRAME) == sealed_position[draining])
#define FRONTIER_LINE LINE(draining, frontier_term)
#define AT_TAIL (!sealed[draining] && active_term[draining] == frontier_term && !tail_fence[FRONTIER_LINE] && \
                 frontier_at + EXTENT(FRONTIER_FRAME) == tail_bytes[FRONTIER_LINE])
#define FOLLOWING_KNOWN (AT_SEAL || AT_TAIL || RESOLVED(BEHIND))

/* RingKeeper::scan may go on. */
#define CAN_SCAN (active_term[draining] >= frontier_term && RESOLVED(FRONTIER_FRAME) && \
                  !(sealed[draining] && FRONTIER >= sealed_position[draining]) && (!SCRIBBLED || FOLLOWING_KNOWN))

/* What becomes of a record whose frame is given to nobody. */
inline check_lost(record) {
  assert(record == 0 || g_dies[OWNER_OF(record)] || g_given_up[record] || g_told[record] == REFUSED);
  assert(record == 0 || g_told[record] != KEPT)
}

/* RingKeeper::scan: one frame. */
byte scanned_frame, scanned_record, scanned_count, scanned_next;
inline scan() {
  scanned_frame = FRONTIER_FRAME;
  assert(SCRIBBLED || offset_of[scanned_frame] == frontier_offset + 1); /* dense; the code says `corrupt` */
  if
  :: high[scanned_frame] == KIND_DATA ->
     scanned_record = value[scanned_frame];
     assert(scanned_record != 0 && g_offset[scanned_record] == offset_of[scanned_frame]);
     assert(!g_passed[scanned_record] && g_told[scanned_record] != REFUSED);
     assert(key_length[scanned_frame] == KEY_LENGTH); /* as its producer wrote it */
     g_passed[scanned_record] = 1;
     frontier_offset++
  :: high[scanned_frame] == KIND_PAD ->
     assert(key_length[scanned_frame] == 0)
  :: high[scanned_frame] >= KIND_ABORTED ->
#ifdef MUTANT_FILLER_TRUSTED
     scanned_count = key_length[scanned_frame];
#else
     if
     :: !scribbled[draining] -> scanned_count = key_length[scanned_frame]
     :: scribbled[draining] && AT_SEAL -> scanned_count = sealed_offset[draining] - frontier_offset
     :: scribbled[draining] && AT_TAIL ->
        scanned_count = base_offset[FRONTIER_LINE] + tail_records[FRONTIER_LINE] - frontier_offset
     :: scribbled[draining] && !AT_SEAL && !AT_TAIL ->
        scanned_count = offset_of[BEHIND] - 1 - frontier_offset;
        if
        :: high[BEHIND] >= KIND_ABORTED && key_length[scanned_frame] != scanned_count -> scanned_count = 0
        :: else
        fi
     fi;
#endif
     scanned_next = 0;
     do
     :: scanned_next < EXTENT(scanned_frame) -> check_lost(g_claimed[scanned_frame + scanned_next]); scanned_next++
     :: else -> break
     od;
     frontier_offset = frontier_offset + scanned_count
  fi;
  frontier_at = frontier_at + EXTENT(scanned_frame);
  assert(frontier_at <= TERM);
  if
  :: frontier_at == TERM -> frontier_term++; frontier_at = 0
  :: else
  fi;
  scanned_frame = 0; scanned_record = 0; scanned_count = 0; scanned_next = 0
}

/* Nobody but the keeper knows the frontier, so it is all one when it moves: here, as soon as it can. Only where a
 * claim may be given up it matters, for the owner of one may write into an aborted frame before or behind that. */
inline scan_all() {
#if GIVE_UPS == 0
  do
  :: CAN_SCAN -> scan()
  :: else -> break
  od
#else
  skip
#endif
}

/* --- Ring::publish_filler: src/log/ring.cc -------------------------------------------------------- */

/* Fields first, then the word, by compare-and-set from one that was seen. */
inline fill_fields(f, at_offset, records) {
  offset_of[f] = (at_offset) + 1;
  key_length[f] = records
}

/* --- Ring::rotate ------------------------------------------------------------------------------------
 * From `bytes`, `next`: the end of `term`. Leaves the outcome in `outcome`. */

#define DONE 0
#define UNKNOWN_END 1
#define FULL 2
#define SEALED 3

inline rotate(ring, term) {
  atomic { /* the end, if its tripper has said it */
    outcome = DONE;
    if
    :: end_lap[LINE(ring, term)] != LAP(term) -> outcome = UNKNOWN_END
    :: end_lap[LINE(ring, term)] == LAP(term) && tail_fence[LINE(ring, term)] -> outcome = SEALED
    :: else ->
       bytes = end_bytes[LINE(ring, term)];
       next = base_offset[LINE(ring, term)] + end_records[LINE(ring, term)]
    fi
  }
  if
  :: outcome == DONE ->
     atomic { /* the pad; whoever helps stores the same */
       frame = FRAME(ring, term, bytes);
       assert(g_claimed[frame] == 0); /* a late helper would spoil a record of a later lap */
       fill_fields(frame, next, 0);
       if
       :: low[frame] == 0 && high[frame] == 0 -> low[frame] = TERM - bytes; high[frame] = KIND_PAD
       :: else
       fi;
       scan_all()
     }
     atomic { /* is the next one clean? Then its line; whoever helps stores the same */
       if
       :: term_limit[ring] <= (term) + 1 -> outcome = FULL
       :: else ->
          assert(tail_lap[LINE(ring, (term) + 1)] <= LAP((term) + 1)); /* or it is a later lap's */
          number[LINE(ring, (term) + 1)] = (term) + 1;
          base_offset[LINE(ring, (term) + 1)] = next
       fi
     }
     if
     :: outcome == FULL
     :: else ->
        atomic { /* OPEN_TERM: a compare-and-set from the lap before */
          if
          :: tail_lap[LINE(ring, (term) + 1)] == LAP((term) + 1)
          :: else ->
             if
             :: tail_fence[LINE(ring, (term) + 1)] -> outcome = SEALED
             :: else ->
                assert(tail_lap[LINE(ring, (term) + 1)] + 1 == LAP((term) + 1));
                tail_lap[LINE(ring, (term) + 1)] = LAP((term) + 1);
                tail_records[LINE(ring, (term) + 1)] = 0;
                tail_bytes[LINE(ring, (term) + 1)] = 0
             fi
          fi
        }
        atomic {
          if
          :: outcome == DONE && active_term[ring] <= (term) -> active_term[ring] = (term) + 1
          :: else
          fi;
          scan_all()
        }
     fi
  :: else
  fi
}

/* --- A producer ----------------------------------------------------------------------------------- */

proctype Producer(byte p) {
  byte ring, term, base, at, record, appended, frame, bytes, next, outcome, old_records, old_lap;
  bit exhausted = 1, attached, fenced, committed, kept;
  {
    do
    :: appended < (p == 0 -> APPENDS : APPENDS_OTHERS) ->
       record = 1 + p * APPENDS + appended;
    take: /* Appender::take, take_slowly; OwnedSlot::announce */
       atomic {
         if
         :: exhausted -> goto next_term
         :: else -> ANNOUNCE(CLAIMING)
         fi
       }
       atomic { /* CLAIM: one fetch_add of the tail */
         at = tail_bytes[LINE(ring, term)];
         old_records = tail_records[LINE(ring, term)];
         old_lap = tail_lap[LINE(ring, term)];
         fenced = tail_fence[LINE(ring, term)];
         tail_bytes[LINE(ring, term)] = at + 1;
         tail_records[LINE(ring, term)] = old_records + 1;
         g_current[p] = record;
         if
         :: !fenced && at + 1 <= TERM_USABLE ->
            frame = FRAME(ring, term, at);
            assert(g_claimed[frame] == 0); /* no two claims overlap */
            assert(low[frame] == 0 && high[frame] == 0); /* in zeroed memory */
            g_claimed[frame] = record;
            g_given_up[record] = IS_GIVEN_UP(p); /* it was, and went on before the fence */
            g_offset[record] = base_offset[LINE(ring, term)] + old_records + 1
         :: else
         fi
       }
       atomic { /* Appender::place, adopt */
         if
         :: !fenced && at + 1 <= TERM_USABLE ->
            old_lap = 0;
            if
            :: number[LINE(ring, term)] != term -> term = number[LINE(ring, term)]
            :: else
            fi;
            base = base_offset[LINE(ring, term)];
            assert(base + old_records + 1 == g_offset[record]); /* dense: it knows the offset that it has */
            goto header
         :: else -> exhausted = 1
         fi
       }
       atomic { /* TRIP: Ring::publish_end */
         if
         :: !fenced && at <= TERM_USABLE && end_lap[LINE(ring, term)] != old_lap ->
            end_lap[LINE(ring, term)] = old_lap; /* of the tail it found: it may have slept for a lap */
            end_records[LINE(ring, term)] = old_records;
            end_bytes[LINE(ring, term)] = at
         :: else
         fi;
         at = 0; old_records = 0; old_lap = 0; fenced = 0; base = 0; g_current[p] = 0
       }

    next_term: /* Appender::next_term */
       atomic {
         if
         :: sealed[ring] -> FINISH; goto next_ring
         :: else -> ANNOUNCE(HELPING)
         fi
       }
       bytes = active_term[ring];
       atomic { /* Appender::attach_term */
         if
         :: !attached || bytes > term ->
            attached = 1;
            term = bytes;
            exhausted = tail_fence[LINE(ring, term)] || tail_bytes[LINE(ring, term)] > TERM_USABLE;
            bytes = 0;
            if
            :: !exhausted -> goto take
            :: else
            fi
         :: else -> bytes = 0
         fi
       }
       rotate(ring, term);
       atomic {
         bytes = 0; next = 0; frame = 0;
         if
         :: outcome == DONE -> goto next_term
         :: else -> FINISH
         fi
       }
       if
       :: outcome == FULL -> /* Appender::wait_for_space */
          atomic { (term_limit[ring] > term + 1 || sealed[ring]); outcome = 0; goto next_term }
       :: outcome == SEALED -> goto next_ring
       :: outcome == UNKNOWN_END -> /* Appender::leave_to_keeper */
          (end_lap[LINE(ring, term)] == LAP(term) || tail_fence[LINE(ring, term)] || active_term[ring] > term);
          atomic {
            outcome = 0;
            if
            :: end_lap[LINE(ring, term)] == LAP(term) || active_term[ring] > term -> goto next_term
            :: else -> goto next_ring
            fi
          }
       fi;

    next_ring: /* Appender::next_ring, open_ring */
       atomic {
         ring_generation != ring;
         ring = ring_generation;
         attached = 0;
         exhausted = 1;
         term = 0
       }
       goto next_term;

    header: /* write_claim_header: the low half alone, then the rest */
       atomic {
         assert(g_claimed[frame] == record); /* nobody writes where another one's frames are */
         low[frame] = CLAIMED + 1
       }
       atomic {
         assert(g_claimed[frame] == record);
         offset_of[frame] = base + old_records + 1;
         key_length[frame] = KEY_LENGTH;
         owner[frame] = p + 1;
         value[frame] = record
       }
#if IN_PLACE
       if
       :: skip
       :: atomic { /* Appender::claim_as: OwnedSlot::announce_open */
            open_position[p] = term;
#ifdef MUTANT_OPEN_FORGETS_CLAIM
            ANNOUNCE(OPEN)
#else
            op[p] = (op[p] & ~3) | OPEN
#endif
          }
          if
          :: skip
          :: /* Appender::abort */
             atomic {
               assert(g_claimed[frame] == record);
               fill_fields(frame, base + old_records, 1)
             }
             atomic {
               if
               :: low[frame] == CLAIMED + 1 && high[frame] == KIND_DATA ->
                  low[frame] = 1;
                  high[frame] = KIND_ABORTED + 1
               :: else
               fi;
               g_told[record] = REFUSED;
               scan_all()
             }
             atomic { assert(!g_passed[record]); FINISH; goto appended_it }
          fi
       fi;
#endif
       atomic { /* COMMIT: Appender::commit_word */
         assert(g_claimed[frame] == record);
         committed = 0;
#ifdef MUTANT_COMMIT_BY_STORE
         low[frame] = 1;
         high[frame] = KIND_DATA;
         committed = 1;
#else
         if
         :: low[frame] == CLAIMED + 1 && high[frame] == KIND_DATA -> low[frame] = 1; committed = 1
         :: else
         fi;
#endif
         scan_all()
       }
#if GIVE_UPS == 0
       kept = committed;
#else
       if /* OwnedSlot::given_up */
       :: !IS_GIVEN_UP(p) -> kept = committed
       :: else ->
          atomic {
            SAME_CLAIM(given_up_done[p], op[p]); /* Appender::was_kept */
            kept = 0;
            bytes = 0;
            do
            :: bytes < at && RESOLVED(FRAME(ring, term, bytes)) ->
               bytes = bytes + EXTENT(FRAME(ring, term, bytes))
            :: bytes < at && !RESOLVED(FRAME(ring, term, bytes)) && low[FRAME(ring, term, bytes)] >= CLAIMED ->
               bytes = bytes + low[FRAME(ring, term, bytes)] - CLAIMED
            :: else -> break
            od;
            if
            :: bytes == at -> kept = high[frame] < KIND_ABORTED && RESOLVED(frame)
            :: else
            fi;
            bytes = 0
          }
       fi;
#endif
       atomic {
         g_told[record] = (kept -> KEPT : REFUSED);
         assert(kept || !g_passed[record]);      /* what was refused is not in the log */
         FINISH;                                 /* OwnedSlot::finish */
    appended_it:
         g_current[p] = 0;
         appended++;
         at = 0; frame = 0; bytes = 0; next = 0; outcome = 0; old_records = 0; record = 0; base = 0;
         committed = 0; kept = 0; fenced = 0
       }
    :: else -> break
    od
  } unless {
    atomic { /* dead; what it knew is gone */
      g_dies[p];
      ring = 0; term = 0; base = 0; at = 0; record = 0; frame = 0; bytes = 0; next = 0; outcome = 0;
      old_records = 0; exhausted = 0; attached = 0; fenced = 0; committed = 0; kept = 0; appended = 0;
      old_lap = 0
    }
  }
}

#if PRODUCERS == 2
#define ANY(condition) (condition(0) || condition(1))
#define ALL(condition) (condition(0) && condition(1))
#else
#define ANY(condition) (condition(0) || condition(1) || condition(2))
#define ALL(condition) (condition(0) && condition(1) && condition(2))
#endif

#if KEEPER_DEATHS > 0
/* A producer that has died is one that makes no step until the keeper sees it: so it dies there. */
proctype KeeperKiller() {
end:
  do
  :: atomic { g_keeper_deaths > 0 && !g_keeper_dies -> g_keeper_dies = 1; g_keeper_deaths-- }
  od
}
#endif

/* --- A reader ------------------------------------------------------------------------------------- */

#if READERS
/* Pins the ring's oldest frame, and looks at it twice. */
proctype Reader() {
  byte term, seen, turns = 2;
  do
  :: turns > 0 ->
     atomic { term = head; turns-- }
     pin = term; /* PartitionReader::attach_to: the pin, then a look at head */
     if
     :: head > term
     :: else ->
        atomic { /* PartitionReader::poll_ring: a record in place */
          seen = 0;
          if
          :: active_term[0] >= term && low[FRAME(0, term, 0)] == 1 && high[FRAME(0, term, 0)] == KIND_DATA ->
             seen = value[FRAME(0, term, 0)];
             assert(g_offset[seen] > 0)
          :: else
          fi
        }
        assert(seen == 0 || value[FRAME(0, term, 0)] == seen) /* no record changes under its reader */
     fi;
     atomic { pin = NONE; seen = 0; term = 0 }
  :: else -> break
  od
}
#endif

/* --- The keeper ----------------------------------------------------------------------------------- */

/* Ring::claimed_tail */
#define TAIL_BYTES(l) (tail_fence[l] && fenced_known[l] -> fenced_bytes[l] : tail_bytes[l])
#define TAIL_RECORDS(l) (tail_fence[l] && fenced_known[l] -> fenced_records[l] : tail_records[l])

/* RingKeeper::has_unresolved */
#define ACTIVE_LINE LINE(draining, active_term[draining])
#define CLAIMED_END                                                                                  \
  POSITION(active_term[draining], (tail_bytes[ACTIVE_LINE] <= TERM_USABLE -> tail_bytes[ACTIVE_LINE] \
                                                                          : end_bytes[ACTIVE_LINE]))
#define END_KNOWN                                                                 \
  (!tail_fence[ACTIVE_LINE] && (tail_bytes[ACTIVE_LINE] <= TERM_USABLE ||         \
                                end_lap[ACTIVE_LINE] == LAP(active_term[draining])))
#define HAS_UNRESOLVED                                                            \
  (sealed[draining] -> FRONTIER < sealed_position[draining] : (!END_KNOWN || FRONTIER < CLAIMED_END))

#define IS_DEAD_SLOT(i) dead_slot[i]
#define MAY_DIE(i) (PHASE(op[i]) != IDLE && !g_dies[i])
#define OWES(i) owed[i]
#define NEEDS_INQUIRY (ANY(IS_DEAD_SLOT) || retiring == FENCED || ANY(OWES))
#define FENCED_NOW (tail_fence[LINE(0, 0)])

#if RINGS == 2
#define INQUIRING (inquiring[0] || inquiring[1])
#else
#define INQUIRING inquiring[0]
#endif

/* RingKeeper::step_inquiry: he has moved on, is dead, or was given up. */
#ifdef MUTANT_WAITS_FOR_THE_DEAD
#define IS_DEAD(i) 0
#else
#define IS_DEAD(i) slot_dead[i]
#endif
#define SETTLED(ring, i)                                                                              \
  (waiting_for[(ring) * PRODUCERS + (i)] == NONE || op[i] != waiting_for[(ring) * PRODUCERS + (i)] || \
   IS_DEAD(i) || IS_GIVEN_UP(i))
#define SETTLED_0(i) SETTLED(0, i)
#define SETTLED_1(i) SETTLED(1, i)

/* RingKeeper::grace_passed */
#define CONCERNED(i, term)                                                          \
  (PHASE(op[i]) != IDLE && !(PHASE(op[i]) == OPEN && open_position[i] >= (term) + 1) && \
   !SAME_CLAIM(given_up_done[i], op[i]) && !slot_dead[i])
#define GRACE_OVER(i) \
  (grace_ops[i] == NONE || \
   !(CONCERNED(i, grace_term) && (op[i] == grace_ops[i] || PHASE(op[i]) == OPEN)))

/* RingKeeper::recycle: there is a term to be made clean. */
#define TO_RECYCLE (term_limit[CURRENT] - TERMS)
#define CAN_RECYCLE                                                                                    \
  (!CAN_SCAN && draining == CURRENT && !tail_fence[LINE(CURRENT, 0)] && term_limit[CURRENT] > active_term[CURRENT] &&          \
   term_limit[CURRENT] < active_term[CURRENT] + 1 + TERMS / 2 && TO_RECYCLE < active_term[CURRENT] &&  \
   POSITION(TO_RECYCLE + 1, 0) <= FRONTIER)

#define MUST_RECYCLE (CAN_RECYCLE && (grace_term != TO_RECYCLE || ALL(GRACE_OVER)))

/* RingKeeper::is_live_open */
#define LIVE_OPEN(f) (owner[f] != 0 && !IS_GIVEN_UP(owner[f] - 1) && !slot_dead[owner[f] - 1])

/* RingKeeper::bounds_of. Leaves limit, following, known. */
inline bounds_of(ring, term) {
  known = 1;
  if
  :: sealed[ring] && sealed_position[ring] <= POSITION(term, 0) ->
     limit = 0; following = sealed_offset[ring]
  :: sealed[ring] && sealed_position[ring] > POSITION(term, 0) && sealed_position[ring] <= POSITION((term) + 1, 0) ->
     limit = sealed_position[ring] - POSITION(term, 0); following = sealed_offset[ring];
#ifndef MUTANT_SEAL_AS_BOUND
     if /* of who claimed since the inquiry began, and before the fence, nobody has asked */
     :: term == inquiry_term[ring] && inquiry_bytes[ring] < limit ->
        limit = inquiry_bytes[ring];
        following = base_offset[LINE(ring, term)] + inquiry_records[ring]
     :: else
     fi
#endif
  :: else ->
     if
     :: term == inquiry_term[ring] && inquiry_bytes[ring] <= TERM_USABLE ->
        limit = inquiry_bytes[ring];
        following = base_offset[LINE(ring, term)] + inquiry_records[ring]
     :: else ->
        if
        :: end_lap[LINE(ring, term)] == LAP(term) ->
           limit = end_bytes[LINE(ring, term)];
           following = base_offset[LINE(ring, term)] + end_records[LINE(ring, term)]
        :: else ->
           limit = TERM_USABLE;
           following = base_offset[LINE(ring, term)];
           known = 0
        fi
     fi
  fi
}

/* RingKeeper::end_of_hole, from `at`: over everything that nobody wrote or will finish. */
inline find_end_of_hole(ring, term) {
  hole_end = at;
  do
  :: hole_end < limit && low[FRAME(ring, term, hole_end)] == 0 && high[FRAME(ring, term, hole_end)] == KIND_DATA ->
     assert(offset_of[FRAME(ring, term, hole_end)] == 0); /* it would be taken for a frame: the code says `corrupt` */
     hole_end++
  :: hole_end < limit && low[FRAME(ring, term, hole_end)] >= CLAIMED && !RESOLVED(FRAME(ring, term, hole_end)) &&
       !LIVE_OPEN(FRAME(ring, term, hole_end)) ->
     hole_end = hole_end + low[FRAME(ring, term, hole_end)] - CLAIMED;
     hole_end = (hole_end > limit -> limit : hole_end)
  :: else -> break
  od
}

/* Takes the frame from its owner: no commit fits from here on. Clears `taken` if the word is another by now. */
inline seize(f, extent) {
  taken = 1;
  if
  :: low[f] == seen_low && high[f] == seen_high -> low[f] = CLAIMED + extent; high[f] = KIND_SEIZED
  :: else -> taken = 0
  fi
}

inline finish_filler(f, extent, records) {
  assert(!(low[f] == 1 && high[f] == KIND_DATA)); /* a committed record is never taken back */
  low[f] = extent;
  high[f] = KIND_ABORTED + extent;
  scan_all()
}

/* Only who was given up and wakes, or a keeper that dies, can tell what the repair does from one step of it. */
#if GIVE_UPS > 0 || KEEPER_DEATHS > 0
#define IN_ONE_GO
#else
#define IN_ONE_GO atomic
#endif

#define NOT_LOOKED 255
/* RingKeeper::fill_term: SEIZE before the fields */
inline fill_term(ring, term) {
  skip;
refill:
  atomic {
    at = (ring == draining && term == frontier_term -> frontier_at : 0);
    next = (ring == draining && term == frontier_term -> frontier_offset : base_offset[LINE(ring, term)]);
    bounds_of(ring, term)
  }
  do
  :: atomic {
       at < limit ->
       frame = FRAME(ring, term, at);
       if
       :: RESOLVED(frame) ->
          next = offset_of[frame] - 1;
          if
          :: high[frame] == KIND_DATA -> next++
          :: high[frame] == KIND_PAD
          :: high[frame] >= KIND_ABORTED -> next = next + key_length[frame]
          fi;
          at = at + EXTENT(frame);
          hole_end = 0
       :: !RESOLVED(frame) && low[frame] >= CLAIMED && LIVE_OPEN(frame) ->
          next = offset_of[frame];
          at++;
          hole_end = 0
       :: else ->
          seen_low = low[frame];
          seen_high = high[frame];
          hole_end = NOT_LOOKED
       fi
     }
     /* Behind the look at its first word: who was given up may have committed since. */
     atomic {
       if
       :: hole_end == NOT_LOOKED ->
          find_end_of_hole(ring, term);
#ifdef MUTANT_EMPTY_HOLE_IS_DAMAGE
          assert(hole_end > at);
#endif
          if
          :: hole_end == at -> hole_end = 0
          :: else ->
             count = (hole_end == limit -> following : offset_of[FRAME(ring, term, hole_end)] - 1);
             next = (scribbled[ring] && next > count -> count : next);
             assert(next <= count);
             count = count - next
          fi
       :: else
       fi
     }
     if
     :: hole_end == 0
     :: hole_end == limit && !known && hole_end != 0 -> break
     :: else ->
#ifdef MUTANT_FIELDS_BEFORE_WORD
        atomic { fill_fields(frame, next, count) }
        atomic {
          taken = 0;
          if
          :: low[frame] == seen_low && high[frame] == seen_high ->
             taken = 1;
             finish_filler(frame, hole_end - at, count)
          :: else
          fi
        }
#else
        atomic { seize(frame, hole_end - at) }
        if
        :: taken ->
           atomic { fill_fields(frame, next, count) }
           atomic { finish_filler(frame, hole_end - at, count) }
        :: else
        fi;
#endif
        atomic {
          if
          :: taken ->
             record = at;
             do
             :: record < hole_end -> check_lost(g_claimed[FRAME(ring, term, record)]); record++
             :: else -> break
             od;
             record = 0;
             next = next + count;
             at = hole_end
          :: else
          fi;
          hole_end = 0; taken = 0; count = 0; seen_low = 0; seen_high = 0; frame = 0
        }
     fi
  :: at >= limit -> hole_end = 0; break
  od;
  if
  :: known
  :: else -> close_tripped_term(ring, term)
  fi
}

/* RingKeeper::close_tripped_term: the one who tripped died, or stands still, before it said where. */
inline close_tripped_term(ring, term) {
  atomic {
    frame = FRAME(ring, term, at);
    hole_end = TERM_USABLE; /* there is always room for a filler's header, or at is where it ends */
    seen_low = low[frame]; seen_high = high[frame]
  }
#ifndef MUTANT_CLOSE_BEFORE_SEIZE
  if
  :: hole_end > at ->
     atomic { /* somebody may have resolved it meanwhile */
       if
       :: RESOLVED(frame) -> taken = 0
       :: else -> seize(frame, hole_end - at)
       fi
     }
     if
     :: !taken -> goto refill
     :: else
     fi
  :: else
  fi;
#endif
  atomic { /* Ring::publish_end: the first to say it counts */
    if
    :: end_lap[LINE(ring, term)] != LAP(term) ->
       end_lap[LINE(ring, term)] = LAP(term);
       end_records[LINE(ring, term)] = next - base_offset[LINE(ring, term)];
       end_bytes[LINE(ring, term)] = hole_end;
       taken = 1
    :: else -> taken = 0
    fi
  }
  if
  :: !taken -> goto refill
  :: else
  fi;
  if
  :: hole_end > at ->
     atomic { fill_fields(frame, next, 0) }
     atomic { finish_filler(frame, hole_end - at, 0) }
  :: else
  fi;
  rotate(ring, term);
  atomic { frame = 0; seen_low = 0; seen_high = 0; taken = 0; bytes = 0; hole_end = 0; outcome = 0 }
}

#define KEEPER_LOCALS_CLEARED                                                                            \
  frame = 0; record = 0; count = 0; next = 0; bytes = 0; outcome = 0; r = 0; t = 0; at = 0; limit = 0;    \
  following = 0; hole_end = 0; seen_low = 0; seen_high = 0; known = 0; taken = 0; seen_op = 0

proctype Keeper() {
  byte frame, record, count, next, bytes, outcome, r, t, at, limit, following, hole_end, seen_low, seen_high, seen_op;
  bit known, taken;
#if KEEPER_DEATHS > 0
again:
  skip;
  {
#endif
end_tick:
    do
#if GIVE_UPS > 0
    :: atomic { CAN_SCAN -> scan() }
#endif

#if DEATHS > 0
    :: atomic { /* Keeper::watch_slots, bury */
         g_deaths > 0 && ANY(MAY_DIE);
         if
         :: MAY_DIE(0) -> r = 0
         :: MAY_DIE(1) -> r = 1
#if PRODUCERS == 3
         :: MAY_DIE(2) -> r = 2
#endif
         fi;
         g_deaths--;
         g_dies[r] = 1;
         g_current[r] = 0;
         slot_dead[r] = 1;
         dead_slot[r] = 1;
         r = 0
       }
#endif

#if GIVE_UPS > 0
#define STANDS_STILL(i) (PHASE(op[i]) != IDLE && !slot_dead[i] && !IS_GIVEN_UP(i))
    :: atomic { /* Keeper::watch_slots: claim.timeout.ms is over, as it may be at any time; the first producer's */
         g_give_ups > 0 && ring_generation == 0 && STANDS_STILL(0);
         g_give_ups--;
         seen_op = op[r];
         scribbled[0] = 1
       }
       atomic { /* PartitionKeeper::on_slot_stuck */
         given_up[r] = seen_op;
         if
         :: SAME_CLAIM(op[r], seen_op) && g_current[r] != 0 -> g_given_up[g_current[r]] = 1
         :: else
         fi;
         owed[r] = 1;
#ifndef MUTANT_NO_RETIRE
         retiring = (retiring == 0 -> PREPARING : retiring);
#endif
         r = 0; seen_op = 0
       }

#endif

#if RINGS == 2
    /* PartitionKeeper::step_retire */
    :: atomic { retiring == PREPARING -> r = TERMS }
       do
       :: r > 0 ->
          atomic { /* FENCE: Ring::fence, a fetch_or of each tail; the first line's comes last */
            r--;
            if
            :: tail_fence[LINE(0, r)] /* by a keeper that died */
            :: else ->
               fenced_known[LINE(0, r)] = 1;
               fenced_bytes[LINE(0, r)] = tail_bytes[LINE(0, r)];
               fenced_records[LINE(0, r)] = tail_records[LINE(0, r)];
               tail_fence[LINE(0, r)] = 1
            fi
          }
       :: else -> break
       od;
       atomic { retiring = FENCED; r = 0 }

    :: atomic { /* Ring::seal_point */
         retiring == FENCED;
         t = active_term[0];
         do
         :: tail_lap[LINE(0, t + 1)] == LAP(t + 1) -> t++
         :: else -> break
         od;
         bytes = TAIL_BYTES(LINE(0, t));
         if
         :: bytes <= TERM_USABLE -> at = 1; count = base_offset[LINE(0, t)] + TAIL_RECORDS(LINE(0, t))
         :: else ->
            at = 0;
            if
            :: end_lap[LINE(0, t)] == LAP(t) ->
               at = 2;
               bytes = end_bytes[LINE(0, t)];
               count = base_offset[LINE(0, t)] + end_records[LINE(0, t)]
            :: else
            fi
         fi;
         if
         :: at == 0 -> goto not_yet /* its tripper is about to say it, or repair will find out */
         :: at == 2 -> /* the pad */
            frame = FRAME(0, t, bytes);
            assert(g_claimed[frame] == 0);
            fill_fields(frame, count, 0);
            if
            :: low[frame] == 0 && high[frame] == 0 -> low[frame] = TERM - bytes; high[frame] = KIND_PAD
            :: else
            fi;
            bytes = TERM
         :: else
         fi
       }
       atomic { /* Ring::finish_seal */
         sealed_position[0] = POSITION(t, bytes);
         sealed_offset[0] = count;
         sealed[0] = 1
       }
       atomic { /* PartitionKeeper::replace_ring */
         base_offset[LINE(1, 0)] = count; /* Ring::set_base */
         ring_generation = 1;
         retiring = 0
       }
    not_yet:
       atomic { KEEPER_LOCALS_CLEARED }

    :: atomic { /* PartitionKeeper::drop_drained_ring */
         ring_generation == 1 && draining == 0 && FRONTIER == sealed_position[0] && !INQUIRING && !ANY(OWES);
         assert(frontier_offset == sealed_offset[0]);
         draining = 1;
         frontier_term = 0;
         frontier_at = 0
       }
#endif

    /* RingKeeper::recycle */
    :: atomic { /* GRACE: RingKeeper::grace_passed, the first look at who is at work */
         CAN_RECYCLE && grace_term != TO_RECYCLE;
         grace_term = TO_RECYCLE;
         do
         :: r < PRODUCERS ->
            grace_ops[r] = (CONCERNED(r, grace_term) -> op[r] : NONE);
            r++
         :: else -> break
         od;
         r = 0
       }
    :: atomic { /* each has moved on since */
#ifdef MUTANT_NO_GRACE
         CAN_RECYCLE && grace_term == TO_RECYCLE;
#else
         CAN_RECYCLE && grace_term == TO_RECYCLE && ALL(GRACE_OVER);
#endif
         t = TO_RECYCLE;
         r = CURRENT;
#if READERS == 0
         bytes = NONE
       }
#else
       }
#ifdef MUTANT_PIN_BEFORE_HEAD
       bytes = pin;
       head = t + 1;
#else
       head = t + 1; /* HEAD: before the look at the pins */
       bytes = pin;
#endif
#endif
       if
#ifndef MUTANT_NO_PIN_LOOK
       :: r == 0 && bytes < t + 1 /* RingKeeper::readers_pin_below: at another time, then */
#endif
       :: else ->
          atomic { /* the term's memory is zeroed */
            at = 0;
            do
            :: at < TERM ->
               frame = FRAME(r, t, at);
               low[frame] = 0; high[frame] = 0; offset_of[frame] = 0; key_length[frame] = 0; owner[frame] = 0;
               value[frame] = 0; g_claimed[frame] = 0;
               at++
            :: else -> break
            od;
            term_limit[r] = term_limit[r] + 1
          }
       fi;
       atomic { KEEPER_LOCALS_CLEARED }

    :: /* RingKeeper::help_rotate */
       atomic {
         !INQUIRING && !tail_fence[LINE(CURRENT, active_term[CURRENT])] &&
         tail_bytes[LINE(CURRENT, active_term[CURRENT])] > TERM_USABLE &&
         end_lap[LINE(CURRENT, active_term[CURRENT])] == LAP(active_term[CURRENT]) &&
         term_limit[CURRENT] > active_term[CURRENT] + 1;
         r = CURRENT;
         t = active_term[CURRENT]
       }
       rotate(r, t);
       atomic { KEEPER_LOCALS_CLEARED }

    :: atomic { /* PartitionKeeper::repair */
         !INQUIRING && !CAN_SCAN && !MUST_RECYCLE &&
           (NEEDS_INQUIRY || (HAS_UNRESOLVED && g_inquiries > 0));
         if
         :: NEEDS_INQUIRY
         :: else -> g_inquiries--
         fi;
         do
         :: r < PRODUCERS ->
            settling_dead[r] = dead_slot[r];
#if defined(MUTANT_ANSWER_BEFORE_FENCE) || defined(MUTANT_NO_RETIRE)
            settling_owed[r] = owed[r];
#else
            settling_owed[r] = owed[r] && FENCED_NOW; /* fenced_generation */
#endif
            r++
         :: else -> break
         od;
         r = draining
       }
       do /* RingKeeper::begin_inquiry of each ring */
       :: r <= CURRENT ->
#ifndef MUTANT_OPS_BEFORE_TAIL
          atomic { /* INQUIRE: the tail before the ops */
            inquiry_term[r] = active_term[r];
            inquiry_bytes[r] = TAIL_BYTES(LINE(r, inquiry_term[r]));
            inquiry_records[r] = TAIL_RECORDS(LINE(r, inquiry_term[r]))
          }
#endif
          do
          :: atomic {
               t < PRODUCERS;
               waiting_for[r * PRODUCERS + t] = (PHASE(op[t]) == CLAIMING -> op[t] : NONE);
               t++
             }
          :: t == PRODUCERS -> break
          od;
#ifdef MUTANT_OPS_BEFORE_TAIL
          atomic {
            inquiry_term[r] = active_term[r];
            inquiry_bytes[r] = TAIL_BYTES(LINE(r, inquiry_term[r]));
            inquiry_records[r] = TAIL_RECORDS(LINE(r, inquiry_term[r]))
          }
#endif
          atomic { inquiring[r] = 1; t = 0; r++ }
       :: atomic { r > CURRENT -> r = 0; break }
       od

    /* PartitionKeeper::step_inquiries */
#ifdef MUTANT_NO_INQUIRY
    :: atomic { inquiring[0] -> r = 0; inquiring[0] = 0 }
#else
    :: atomic { inquiring[0] && ALL(SETTLED_0) -> r = 0; inquiring[0] = 0 }
#endif
    repair_ring:
       IN_ONE_GO {
         t = (r == draining -> frontier_term : 0);
         do
         :: t <= inquiry_term[r] -> fill_term(r, t); t++
         :: t > inquiry_term[r] -> break
         od
       }
       atomic {
         inquiry_term[r] = 0; inquiry_bytes[r] = 0; inquiry_records[r] = 0;
         do
         :: count < PRODUCERS -> waiting_for[r * PRODUCERS + count] = 0; count++
         :: else -> break
         od;
         count = 0;
         if
         :: INQUIRING
         :: else -> /* PartitionKeeper::settle_inquiry */
            do
            :: count < PRODUCERS ->
               if
               :: settling_dead[count] -> dead_slot[count] = 0; settling_dead[count] = 0
               :: else
               fi;
               if
               :: settling_owed[count] ->
                  owed[count] = 0; settling_owed[count] = 0; given_up_done[count] = given_up[count]
               :: else
               fi;
               count++
            :: else -> break
            od
         fi;
         KEEPER_LOCALS_CLEARED
       }
#if RINGS == 2
    :: atomic { inquiring[1] && ALL(SETTLED_1) -> r = 1; inquiring[1] = 0; goto repair_ring }
#endif
    od
#if KEEPER_DEATHS > 0
  } unless {
    atomic { /* the next keeper: what the last one knew is gone */
      g_keeper_dies -> g_keeper_dies = 0;
      KEEPER_LOCALS_CLEARED;
      do
      :: r < PRODUCERS ->
         /* owed stays: a claim that was given up is found to stand still again */
         dead_slot[r] = slot_dead[r]; settling_dead[r] = 0; settling_owed[r] = 0; grace_ops[r] = 0;
         r++
      :: else -> break
      od;
      r = 0;
      do
      :: r < RINGS * PRODUCERS -> waiting_for[r] = 0; r++
      :: else -> break
      od;
      r = 0;
      do
      :: r < RINGS ->
         inquiring[r] = 0; inquiry_term[r] = 0; inquiry_bytes[r] = 0; inquiry_records[r] = 0;
         r++
      :: else -> break
      od;
      r = 0;
      grace_term = NONE;
      goto again
    }
  }
#endif
}

/* --- The whole ------------------------------------------------------------------------------------ */

init {
  byte i;
  atomic {
    do /* Ring::set_base: terms that were never opened look like full ones of the lap before the first */
    :: i < LINES ->
       tail_bytes[i] = (i % TERMS == 0 -> 0 : TERM);
       tail_lap[i] = (i % TERMS == 0 -> 1 : 0);
       number[i] = 0;
       i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < RINGS -> term_limit[i] = TERMS; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < PRODUCERS -> given_up[i] = NONE; given_up_done[i] = NONE; i++
    :: else -> break
    od;
    i = 0;
    run Keeper();
    do
    :: i < PRODUCERS -> run Producer(i); i++
    :: else -> break
    od;
    i = 0;
#if KEEPER_DEATHS > 0
    run KeeperKiller();
#endif
#if READERS
    run Reader();
#endif
  }
}

/* With its owner dead, the frontier gets past a claim eventually (under weak fairness: who can go on, does). */
#ifdef PROGRESS
#define CLAIM_OF_THE_DEAD (g_dies[0] && g_offset[1] > 0 && frontier_offset < g_offset[1])
ltl past_the_hole { [] (CLAIM_OF_THE_DEAD -> <> !CLAIM_OF_THE_DEAD) }
#endif
