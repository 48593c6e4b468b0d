/*
 * Push, sleep, wake, die, step over: src/ring.rs and src/doorbell.rs as one small system.
 * ci/model.sh checks it whole, and that each deliberate bug (-D BUG_...) is found. docs/model/README.md says what is in it.
 */

#define PRODUCERS 2
#ifndef PUSHES
#define PUSHES    1                       /* of each producer */
#endif
#define REQUESTS  (PRODUCERS * PUSHES)
#define CELLS     2                       /* a power of two */
#ifndef TICKETS
#define TICKETS   1                       /* tries before the pending bitmap; the code has 3 */
#endif
#ifndef PRODUCER_DEATHS
#define PRODUCER_DEATHS 1
#endif
#ifndef COMMUNICATOR_DEATHS
#define COMMUNICATOR_DEATHS 1
#endif

#define NONE          7
#define EMPTY(lap)    ((lap) * 8 + NONE)
#define FULL(lap, r)  ((lap) * 8 + (r))
#define INDEX(ticket) ((ticket) & 1)
#define LAP(ticket)   ((ticket) >> 1)
#define FLAG          1

byte tail, head, cell[CELLS];
byte pending, any;                        /* the bitmap, and that a bit was raised */
byte parked, sequence;
bool asleep;                              /* in FUTEX_WAIT */

byte state[REQUESTS];                     /* 0 idle, 1 submitted, 2 claimed */
bool pushed[REQUESTS];                    /* its producer has come back from submit */
byte reaped[16];                          /* tickets that gave a hint */
byte passed[16];                          /* tickets stepped over */
bool died;                                /* a producer did */
byte finished;

/* Dies here, or goes on. */
#define MAY_DIE if :: mortal -> died = true; goto gone :: true fi

/* Whether the flag may be looked at before the push is visible: without the fence DB_2 it may. */
#ifdef BUG_PRODUCER_WITHOUT_FENCE
#define EARLY_LOOK if :: true -> seen = parked; early = true :: true fi
#else
#define EARLY_LOOK skip
#endif

proctype producer(byte me) {
    byte i, r, ticket, tries, seen, rung;
    bool ok, early;
    bool mortal = me < PRODUCER_DEATHS;

    do
    :: i < PUSHES ->
        r = me * PUSHES + i;
        state[r] = 1;
        MAY_DIE;
        tries = 0;
        ok = false;
        early = false;
        EARLY_LOOK;
        do
        :: !ok && tries < TICKETS ->
            tries++;
            atomic { ticket = tail; tail++ }
            MAY_DIE;
            if
            :: ticket - head >= CELLS -> break           /* full: look no further */
            :: else ->
                atomic {
                    if
                    :: cell[INDEX(ticket)] == EMPTY(LAP(ticket)) ->
                        cell[INDEX(ticket)] = FULL(LAP(ticket), r);
                        ok = true
                    :: else                              /* stepped over */
                    fi
                }
            fi
        :: else -> break
        od;
        MAY_DIE;
        if
        :: !ok ->
            atomic { pending = pending | (1 << r) }
            MAY_DIE;
            any = 1;
            MAY_DIE
        :: else
        fi;
        if :: !early -> seen = parked :: else fi;
        if
        :: (seen & FLAG) && seen != rung ->
            rung = seen;
#ifdef BUG_WAKER_CLEARS_THE_FLAG
            parked = parked & ~FLAG;
            MAY_DIE;
#endif
            atomic { sequence++ }
            MAY_DIE;
            asleep = false                               /* FUTEX_WAKE */
        :: else
        fi;
        /* What the next push does not need must not tell states apart. */
        atomic { pushed[r] = true; i++; ticket = 0; tries = 0; seen = 0; early = false; ok = false }
    :: else -> break
    od;
gone:
    atomic { finished++; i = 0; r = 0; ticket = 0; tries = 0; seen = 0; rung = 0; ok = false; early = false }
}

/* The communicator dies here, and another takes over; or it goes on. */
#define MAY_FALL if :: lives > 0 -> lives--; goto take_over :: true fi

/* The slot's word decides: a hint that is stale leads to nothing. */
#define CLAIM(r) if :: state[r] == 1 -> state[r] = 2 :: else fi

#define IS_IDLE (tail == head && any == 0)

proctype communicator() {
    byte at, c, t, bits, seq, r;
    bool idle, ok;
    byte lives = COMMUNICATOR_DEATHS;

take_over:
    atomic { asleep = false; at = head; bits = 0; r = 0; c = 0; t = 0; seq = 0; idle = false; ok = false }
    atomic {
        do
        :: r < REQUESTS -> CLAIM(r); r++
        :: else -> break
        od
    }

reap:
    atomic { c = 0; t = 0; seq = 0; r = 0; bits = 0; idle = false; ok = false }
    if
    :: any != 0 ->
#ifdef BUG_ANY_IS_CLEARED_LAST
        atomic { bits = pending; pending = 0 }
        MAY_FALL;
        any = 0;
#else
        any = 0;
        MAY_FALL;
        atomic { bits = pending; pending = 0 }
#endif
        MAY_FALL;
        atomic {
        r = 0;
        do
        :: r < REQUESTS -> if :: bits & (1 << r) -> CLAIM(r) :: else fi; r++
        :: else -> break
        od;
        bits = 0
        }
    :: else
    fi;
next:
    c = cell[INDEX(at)];
    if
    :: c == EMPTY(LAP(at)) ->
        t = tail;
        if
        :: t == at -> goto park
        :: else ->
#ifdef BUG_STEP_OVER_LEAVES_THE_CELL
            ok = true;
#else
            atomic {
                ok = (cell[INDEX(at)] == EMPTY(LAP(at)));
                if :: ok -> cell[INDEX(at)] = EMPTY(LAP(at) + 1) :: else fi
            }
#endif
            if
            :: ok ->
progress_stepped_over:
                passed[at]++;
                MAY_FALL;
                at++;
                head = at
            :: else
            fi;
            goto next
        fi
    :: c >> 3 == LAP(at) && c != EMPTY(LAP(at)) ->
progress_reaped:
        atomic { r = c & 7; reaped[at]++; assert(reaped[at] == 1 && r < REQUESTS) }
#ifdef BUG_HEAD_BEFORE_RESET
        at++;
        head = at;
        MAY_FALL;
        cell[INDEX(at - 1)] = EMPTY(LAP(at - 1) + 1);
#else
        cell[INDEX(at)] = EMPTY(LAP(at) + 1);
        MAY_FALL;
        at++;
        head = at;
#endif
        MAY_FALL;
        atomic { CLAIM(r) }
        goto next
    :: c == EMPTY(LAP(at) + 1) ->
        /* The one before died between reset and head. */
progress_passed:
        assert(tail != at);
        at++;
        head = at;
        goto next
    fi;

park:
    seq = sequence;
#ifdef BUG_COMMUNICATOR_WITHOUT_FENCE
    idle = IS_IDLE;                                      /* the look may pass the store */
    parked = (parked | FLAG) + 2;
#else
    parked = (parked | FLAG) + 2;
    MAY_FALL;
    idle = IS_IDLE;
#endif
    if
    :: idle ->
        MAY_FALL;
        atomic { if :: sequence == seq -> asleep = true :: else fi }
end_asleep:
progress_asleep:
        if
        :: !asleep
        :: lives > 0 -> lives--; goto take_over
        fi
    :: else
    fi;
    parked = parked & ~FLAG;
    goto reap
}

/* Asleep with nobody left to wake it: what was pushed was claimed, and no ticket is left behind. */
proctype judge() {
    byte r;
end_judge:
    atomic {
        finished == PRODUCERS && asleep;
        do
        :: r < REQUESTS -> assert(!pushed[r] || state[r] == 2); r++
        :: else -> break
        od;
        /* A producer that died late may leave a hint and the flag: for the next producer, or the next audit. */
        assert(died || IS_IDLE);
        r = 0;
        do
        :: r < 16 -> assert(reaped[r] + passed[r] <= 1); r++
        :: else -> break
        od
    }
}

init {
    atomic {
        byte i = 0;
        do
        :: i < CELLS -> cell[i] = EMPTY(0); i++
        :: else -> break
        od;
        run communicator();
        run judge();
        i = 0;
        do
        :: i < PRODUCERS -> run producer(i); i++
        :: else -> break
        od
    }
}
