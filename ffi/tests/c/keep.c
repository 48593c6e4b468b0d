/*
 * Description: both sides in one process, one thread at a time: what a communicator in C does to the relation sizes of
 * its region, claim by claim, and its misuse.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shmuring/host.h"

#define SLOTS 8
#define LSN 70
/* What is not known, or just being changed. */
#define MISS (-1)

static struct shmuring_region *region;
static struct shmuring_backend *backend;
static struct shmuring_communicator *c;

static struct shmuring_rel rel(uint32_t number)
{
	return shmuring_rel_of(1663, 5, number, 0);
}

/* Blocks of a fork as a backend finds them, -2 for no such fork, or MISS. */
static long look(struct shmuring_rel of)
{
	struct shmuring_rel_size size;
	int found = shmuring_cached_rel_size(backend, of, &size);

	CHECK(found == 0 || found == 1);
	if (!found)
		return MISS;
	return size.blocks == SHMURING_MISSING ? -2 : (long)size.blocks;
}

static shmuring_ref submit(const struct shmuring_request *request)
{
	shmuring_ref ref = shmuring_start(backend, request);

	CHECK(ref >= 0);
	return ref;
}

static struct shmuring_claim reap(uint32_t to)
{
	struct shmuring_claim claim;

	GIVES(shmuring_communicator_reap(c, to, &claim, 1), 1);
	return claim;
}

static int finish(shmuring_ref ref)
{
	struct shmuring_completion done;
	struct shmuring_wait wait = patience();

	GIVES(shmuring_wait(backend, ref, &wait), 0);
	GIVES(shmuring_finish(backend, ref, &done), 0);
	return done.error;
}

static struct shmuring_request zero_extend(uint32_t number, uint32_t first, uint32_t count)
{
	struct shmuring_request r;

	shmuring_prep_zero_extend(&r, rel(number), first, count, LSN);
	return r;
}

/* A request from its submit to its answer: a miss from the claim on, and known before the completion is. */
static void change(const struct shmuring_request *r, long after)
{
	shmuring_ref ref = submit(r);
	struct shmuring_rel of = shmuring_rel_of(r->spc_oid, r->db_oid, r->rel_number, r->fork);
	struct shmuring_claim claim = reap(SHMURING_STATE_PROCESSING);

	CHECK(claim.ref == ref);
	GIVES(look(of), MISS);
	/* What C makes of its copy, and says as value, changes nothing. */
	claim.block = claim.arg = claim.rel_number = 3;
	GIVES(shmuring_claim_complete(c, claim.ref, 12345, 999), 0);
	GIVES(look(of), after);
	GIVES(finish(ref), 0);
	GIVES(look(of), after);
}

/* A create of a fork that a test of its own begins with. */
static void create(uint32_t number)
{
	struct shmuring_request r;

	shmuring_prep_create(&r, rel(number), LSN);
	change(&r, 0);
}

static void every_change_leaves_the_size_that_its_request_says(void)
{
	static const char image[SHMURING_DEFAULT_BLOCK_SIZE] = {1};
	struct shmuring_request r = zero_extend(1, 0, 4);
	struct shmuring_rel_size size;

	/* At least four: that is no size. */
	change(&r, MISS);
	create(1);
	r = zero_extend(1, 0, 4);
	change(&r, 4);
	shmuring_prep_extend(&r, rel(1), 4, LSN + 1, image);
	change(&r, 5);
	shmuring_prep_write_page(&r, rel(1), 2, 1, LSN, image);
	GIVES(look(rel(1)), 5);
	shmuring_prep_truncate(&r, rel(1), 2, LSN + 2);
	change(&r, 2);
	shmuring_prep_truncate(&r, rel(1), 3, LSN + 3);
	change(&r, 2);
	shmuring_prep_update_rel_size(&r, rel(1), 100, LSN + 4);
	change(&r, 100);
	GIVES(shmuring_cached_rel_size(backend, rel(1), &size), 1);
	CHECK(size.lsn == LSN + 4 && size.is_changed == 1);
	shmuring_prep_unlink(&r, rel(1), LSN + 5);
	change(&r, -2);
}

static void what_failed_or_is_in_doubt_leaves_a_miss(void)
{
	struct shmuring_request r = zero_extend(2, 0, 4);
	struct shmuring_claim claim;
	shmuring_ref ref;

	create(2);
	ref = submit(&r);
	claim = reap(SHMURING_STATE_COPYING);
	GIVES(shmuring_claim_fail(c, claim.ref, 0, 0, 1), SHMURING_ERR_BAD_REQUEST);
	GIVES(shmuring_claim_fail(c, claim.ref, ENOSPC, 0, 1), 0);
	GIVES(look(rel(2)), MISS);
	GIVES(finish(ref), ENOSPC);
	GIVES(look(rel(2)), MISS);
	shmuring_prep_update_rel_size(&r, rel(2), 9, LSN);
	change(&r, 9);

	ref = submit(&r);
	claim = reap(SHMURING_STATE_PROCESSING);
	GIVES(shmuring_claim_forget_size(c, claim.ref), 0);
	GIVES(shmuring_claim_complete(c, claim.ref, 0, 0), 0);
	GIVES(shmuring_claim_forget_size(c, claim.ref), SHMURING_ERR_STALE);
	GIVES(look(rel(2)), MISS);
	GIVES(finish(ref), 0);
	change(&r, 9);

	/* Of this one nobody has said that it is over. */
	ref = submit(&r);
	GIVES(shmuring_claim_drop(c, reap(SHMURING_STATE_PROCESSING).ref), 0);
	GIVES(finish(ref), ECANCELED);
	change(&r, MISS);
}

static void an_answer_that_is_given_twice_ends_no_change_of_another_request(void)
{
	struct shmuring_request r = zero_extend(3, 0, 2);
	struct shmuring_claim first, second, third;
	shmuring_ref refs[3];

	create(3);
	refs[0] = submit(&r);
	first = reap(SHMURING_STATE_PROCESSING);
	r = zero_extend(3, 2, 2);
	refs[1] = submit(&r);
	second = reap(SHMURING_STATE_PROCESSING);
	GIVES(shmuring_claim_complete(c, first.ref, 0, 0), 0);
	GIVES(finish(refs[0]), 0);
	/* The slot has a new request by now, under another name. */
	r = zero_extend(3, 4, 2);
	refs[2] = submit(&r);
	CHECK(shmuring_ref_slot(refs[2]) == shmuring_ref_slot(refs[0]));
	third = reap(SHMURING_STATE_PROCESSING);
	GIVES(shmuring_claim_complete(c, first.ref, 0, 0), SHMURING_ERR_STALE);
	GIVES(shmuring_claim_fail(c, first.ref, EIO, 0, 1), SHMURING_ERR_STALE);
	GIVES(shmuring_claim_forget_size(c, first.ref), SHMURING_ERR_STALE);
	GIVES(look(rel(3)), MISS);
	GIVES(shmuring_claim_complete(c, third.ref, 0, 0), 0);
	GIVES(look(rel(3)), MISS);
	GIVES(shmuring_claim_complete(c, second.ref, 0, 0), 0);
	GIVES(look(rel(3)), 6);
	GIVES(finish(refs[1]), 0);
	GIVES(finish(refs[2]), 0);
}

/* Asks for a size and answers with it: what is known then. */
static long ask(const struct shmuring_request *r, uint64_t value)
{
	struct shmuring_rel of = shmuring_rel_of(r->spc_oid, r->db_oid, r->rel_number, r->fork);
	shmuring_ref ref = submit(r);
	struct shmuring_claim claim = reap(SHMURING_STATE_COPYING);

	GIVES(shmuring_claim_forget_size(c, claim.ref), 0);
	GIVES(shmuring_claim_complete(c, claim.ref, value, LSN), 0);
	GIVES(finish(ref), 0);
	return look(of);
}

static void sizes_that_were_read_are_kept_if_that_was_asked_for_and_nothing_overtook_them(int of_reads)
{
	struct shmuring_request r, asking;
	struct shmuring_rel_size size;
	struct shmuring_claim read, extend;
	shmuring_ref refs[2];

	shmuring_prep_rel_size(&asking, rel(10), 1, 1);
	GIVES(ask(&asking, 7), of_reads ? 7 : MISS);
	if (!of_reads)
		return;
	GIVES(shmuring_cached_rel_size(backend, rel(10), &size), 1);
	CHECK(size.lsn == LSN && size.is_changed == 0);
	shmuring_prep_rel_size(&asking, rel(11), 1, 1);
	GIVES(ask(&asking, SHMURING_MISSING), -2);
	shmuring_prep_rel_size(&asking, rel(12), 1, 1);
	GIVES(ask(&asking, UINT32_MAX), MISS);
	GIVES(ask(&asking, UINT64_C(1) << 32), MISS);
	shmuring_prep_rel_size(&asking, rel(12), 1, 0);
	GIVES(ask(&asking, SHMURING_MISSING), MISS);
	shmuring_prep_rel_exists(&asking, rel(12), 1);
	GIVES(ask(&asking, 1), MISS);
	GIVES(ask(&asking, 0), -2);
	shmuring_prep_rel_size(&asking, rel(13), 1, 1);
	shmuring_set_request_lsn(&asking, 50);
	GIVES(ask(&asking, 7), MISS);

	/* Overtaken: the extend is claimed after the read and answered before it. */
	shmuring_prep_rel_size(&asking, rel(14), 1, 1);
	refs[0] = submit(&asking);
	read = reap(SHMURING_STATE_PROCESSING);
	r = zero_extend(14, 10, 1);
	refs[1] = submit(&r);
	extend = reap(SHMURING_STATE_PROCESSING);
	GIVES(shmuring_claim_complete(c, extend.ref, 0, 0), 0);
	GIVES(finish(refs[1]), 0);
	GIVES(shmuring_claim_complete(c, read.ref, 10, LSN), 0);
	GIVES(finish(refs[0]), 0);
	GIVES(look(rel(14)), MISS);
	GIVES(ask(&asking, 11), 11);

	/* A read that nobody waits for any more, and one that fails, say nothing. */
	shmuring_prep_rel_size(&asking, rel(15), 1, 1);
	refs[0] = submit(&asking);
	GIVES(shmuring_claim_fail(c, reap(SHMURING_STATE_PROCESSING).ref, ENOENT, 0, 1), 0);
	GIVES(finish(refs[0]), ENOENT);
	refs[0] = submit(&asking);
	GIVES(shmuring_claim_drop(c, reap(SHMURING_STATE_PROCESSING).ref), 0);
	GIVES(finish(refs[0]), ECANCELED);
	GIVES(look(rel(15)), MISS);
	GIVES(ask(&asking, 3), 3);
}

static void *park(void *result)
{
	struct shmuring_claim claim;

	*(int *)result = shmuring_communicator_reap_or_park(c, SHMURING_STATE_PROCESSING, &claim, 1, UINT64_MAX);
	return NULL;
}

static void misuse_is_refused_by_name(void)
{
	struct shmuring_claim claim;
	int parked = 7, rc = 0, tries, status;
	pthread_t thread;
	pid_t child;

	GIVES(shmuring_communicator_keep_sizes(NULL, 0), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_communicator_keep_sizes(c, 2), SHMURING_ERR_BAD_REQUEST);
	GIVES(shmuring_claim_forget_size(NULL, 0), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_claim_forget_size(c, SLOTS), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_claim_forget_size(c, 0), SHMURING_ERR_STALE);
	CHECK(pthread_create(&thread, NULL, park, &parked) == 0);
	for (tries = 0; tries < 100000 && rc != -EBUSY; tries++) {
		usleep(100);
		rc = shmuring_communicator_reap(c, SHMURING_STATE_PROCESSING, &claim, 1);
	}
	GIVES(rc, -EBUSY);
	GIVES(shmuring_communicator_keep_sizes(c, 0), -EBUSY);
	while (parked == 7 && shmuring_communicator_reap(c, SHMURING_STATE_PROCESSING, &claim, 1) == -EBUSY) {
		GIVES(shmuring_communicator_wake(c), 0);
		usleep(1000);
	}
	CHECK(pthread_join(thread, NULL) == 0 && parked == 0);
	child = fork();
	if (child == 0) {
		GIVES(shmuring_communicator_keep_sizes(c, 0), SHMURING_ERR_WRONG_PROCESS);
		_exit(0);
	}
	CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void what_was_handed_out_before_is_under_way_all_the_same(void)
{
	struct shmuring_request r;
	struct shmuring_claim claims[2];
	shmuring_ref refs[2];

	shmuring_prep_create(&r, rel(20), LSN);
	refs[0] = submit(&r);
	claims[0] = reap(SHMURING_STATE_PROCESSING);
	/* It may have been sent before the create, and is answered after it. */
	shmuring_prep_rel_size(&r, rel(21), 1, 1);
	refs[1] = submit(&r);
	claims[1] = reap(SHMURING_STATE_PROCESSING);
	GIVES(shmuring_communicator_keep_sizes(c, SHMURING_SIZES_OF_READS), 0);
	GIVES(shmuring_communicator_keep_sizes(c, SHMURING_SIZES_OF_READS), -EALREADY);
	GIVES(look(rel(20)), MISS);
	GIVES(shmuring_claim_complete(c, claims[0].ref, 0, 0), 0);
	GIVES(look(rel(20)), 0);
	GIVES(shmuring_claim_complete(c, claims[1].ref, 4, 0), 0);
	GIVES(look(rel(21)), MISS);
	GIVES(finish(refs[0]), 0);
	GIVES(finish(refs[1]), 0);
}

static void the_sizes_end_with_the_role(void)
{
	struct shmuring_request r = zero_extend(30, 0, 2);
	struct shmuring_claim claim;
	shmuring_ref ref;

	create(30);
	create(31);
	ref = submit(&r);
	claim = reap(SHMURING_STATE_PROCESSING);
	CHECK(claim.ref == ref);
	GIVES(shmuring_communicator_release_role(c), 1);
	GIVES(look(rel(30)), MISS);
	GIVES(finish(ref), ECANCELED);
	GIVES(shmuring_communicator_take_role(region, &c, NULL), 0);
	GIVES(look(rel(31)), MISS);
	/* Without the call nothing is kept. */
	shmuring_prep_update_rel_size(&r, rel(31), 9, LSN);
	change(&r, MISS);
}

int main(void)
{
	struct shmuring_region_options options;

	memset(&options, 0, sizeof options);
	options.slots = SLOTS;
	options.bounce_per_slot = 1;
	options.block_size = SHMURING_DEFAULT_BLOCK_SIZE;
	options.rel_sizes = 64;
	GIVES(shmuring_region_create_memfd(&options, &region, NULL), 0);
	GIVES(shmuring_communicator_take_role(region, &c, NULL), 0);
	backend = backend_of(region, 0, SLOTS);
	misuse_is_refused_by_name();
	GIVES(shmuring_communicator_keep_sizes(c, 0), 0);
	every_change_leaves_the_size_that_its_request_says();
	what_failed_or_is_in_doubt_leaves_a_miss();
	an_answer_that_is_given_twice_ends_no_change_of_another_request();
	sizes_that_were_read_are_kept_if_that_was_asked_for_and_nothing_overtook_them(0);
	the_sizes_end_with_the_role();
	what_was_handed_out_before_is_under_way_all_the_same();
	sizes_that_were_read_are_kept_if_that_was_asked_for_and_nothing_overtook_them(1);
	the_sizes_end_with_the_role();
	GIVES(shmuring_communicator_release_role(c), 0);
	leave(backend, region);
	return 0;
}
