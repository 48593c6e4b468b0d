/*
 * Description: both sides in one process, one thread at a time: each function of a communicator, and its misuse.
 * Exits 0, or with the line of the first check that failed.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shmuring.h"
#include "shmuring/host.h"

#define CHECK(condition)                                                           \
	do {                                                                       \
		if (!(condition)) {                                                \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition);    \
			exit(1);                                                   \
		}                                                                  \
	} while (0)
#define PAGE 8192
#define SLOTS 8

static struct shmuring_region *region;
static struct shmuring_backend *backend;
static struct shmuring_communicator *communicator;
static const struct shmuring_rel rel = { 1663, 5, 16384, 0, { 0, 0, 0 } };

static struct shmuring_wait soon(void)
{
	struct shmuring_wait wait;

	memset(&wait, 0, sizeof(wait));
	wait.until = shmuring_deadline_ms(10000);
	return wait;
}

static shmuring_ref submit(const struct shmuring_request *request)
{
	int slot = shmuring_free_slot(backend);
	shmuring_ref ref;

	CHECK(slot >= 0);
	ref = shmuring_fill(backend, (uint32_t)slot, request);
	CHECK(ref >= 0);
	CHECK(shmuring_submit(backend, ref) == 0);
	return ref;
}

static shmuring_ref submit_read(uint32_t block, uint8_t count)
{
	struct shmuring_request request;

	memset(&request, 0, sizeof(request));
	request.opcode = SHMURING_OP_GET_PAGE;
	request.spc_oid = rel.spc_oid;
	request.db_oid = rel.db_oid;
	request.rel_number = rel.rel_number;
	request.block = block;
	request.count = count;
	request.lsn = 77;
	return submit(&request);
}

static struct shmuring_claim reap_one(void)
{
	struct shmuring_claim claim;

	CHECK(shmuring_communicator_reap(communicator, SHMURING_STATE_PROCESSING, &claim, 1) == 1);
	return claim;
}

static struct shmuring_completion finish(shmuring_ref ref)
{
	struct shmuring_completion done;
	struct shmuring_wait wait = soon();

	CHECK(shmuring_wait(backend, ref, &wait) == 0);
	CHECK(shmuring_finish(backend, ref, &done) == 0);
	return done;
}

static void null_pointers_are_refused(void)
{
	struct shmuring_communicator *none = NULL;
	struct shmuring_claim claim;
	struct shmuring_error err;
	uint64_t lsn;

	memset(&err, 0, sizeof(err));
	CHECK(shmuring_communicator_take_role(NULL, &none, &err) == SHMURING_ERR_BAD_MEMORY && none == NULL);
	CHECK(err.code == SHMURING_ERR_BAD_MEMORY && strlen(err.text) > 0);
	CHECK(shmuring_communicator_take_role(region, NULL, NULL) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_communicator_release_role(NULL) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_communicator_epoch(NULL) == 0);
	CHECK(shmuring_communicator_inherited(NULL) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_communicator_wake(NULL) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_communicator_reap(NULL, SHMURING_STATE_COPYING, &claim, 1) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_communicator_reap(communicator, SHMURING_STATE_COPYING, NULL, 1) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_communicator_sweep(communicator, NULL, 1) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_communicator_audit(communicator, NULL, 1) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_claim_complete(NULL, 0, 0, 0) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_claim_deliver(communicator, 0, 0, NULL, 1) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_claim_take_image(communicator, 0, 0, NULL, 1) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_claim_block_lsn(NULL, 0, 0, &lsn) == SHMURING_ERR_BAD_MEMORY);
}

static void the_role_is_one_s_alone(void)
{
	struct shmuring_communicator *second = NULL;
	struct shmuring_error err;
	char pid[32];

	CHECK(shmuring_communicator_take_role(region, &second, &err) == SHMURING_ERR_ROLE_HELD && second == NULL);
	snprintf(pid, sizeof(pid), "(pid %ld)", (long)getpid());
	CHECK(strstr(err.text, pid) != NULL);
	CHECK(shmuring_region_detach(region) == SHMURING_ERR_IN_USE);
}

static void claims_that_are_none_are_refused(void)
{
	uint64_t lsn;
	int i;
	const shmuring_ref wrong[] = { 0, 3, INT64_MAX, -1, (shmuring_ref)1 << 32, SLOTS };

	for (i = 0; i < 6; i++) {
		int bad = (uint32_t)wrong[i] >= SLOTS ? SHMURING_ERR_BAD_SLOT : SHMURING_ERR_STALE;

		CHECK(shmuring_claim_complete(communicator, wrong[i], 0, 0) == bad);
		CHECK(shmuring_claim_fail(communicator, wrong[i], EIO, 0, 1) == bad);
		CHECK(shmuring_claim_drop(communicator, wrong[i]) == bad);
		CHECK(shmuring_claim_begin_copy(communicator, wrong[i]) == bad);
		CHECK(shmuring_claim_suspend(communicator, wrong[i]) == bad);
		CHECK(shmuring_claim_is_cancelled(communicator, wrong[i]) == bad);
		CHECK(shmuring_claim_block_lsn(communicator, wrong[i], 0, &lsn) == bad);
	}
	CHECK(shmuring_communicator_reap(communicator, SHMURING_STATE_IDLE, NULL, 1) == SHMURING_ERR_BAD_MEMORY);
}

static void a_read_is_told_whole_and_answered_once(void)
{
	static char page[PAGE + 1];
	shmuring_ref ref = submit_read(7, 2);
	struct shmuring_claim claim = reap_one();
	struct shmuring_completion done;
	const void *got;
	uint64_t lsn = 0;

	CHECK(claim.ref == ref && claim.opcode == SHMURING_OP_GET_PAGE && claim.count == 2 && claim.block == 7);
	CHECK(claim.rel_number == rel.rel_number && claim.lsn == 77 && claim.flags == SHMURING_CLASS_DEMAND);
	CHECK(claim.claim_flags == 0 && claim.claim_seq == 0 && claim.pool == SHMURING_POOL_BOUNCE);
	CHECK(shmuring_claim_block_lsn(communicator, claim.ref, 1, &lsn) == 0 && lsn == 77);
	CHECK(shmuring_claim_block_lsn(communicator, claim.ref, 2, &lsn) == SHMURING_ERR_BAD_COUNT);
	CHECK(shmuring_claim_is_cancelled(communicator, claim.ref) == 0);
	memset(page, 'a', sizeof(page));
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 0, page, PAGE + 1) == SHMURING_ERR_BAD_BUFFER);
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 2, page, PAGE) == SHMURING_ERR_BAD_BUFFER);
	CHECK(shmuring_claim_take_image(communicator, claim.ref, 0, page, PAGE) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 0, page, PAGE) == 0);
	CHECK(shmuring_claim_suspend(communicator, claim.ref) == 0);
	memset(page, 'b', sizeof(page));
	CHECK(shmuring_claim_begin_copy(communicator, claim.ref) == 0);
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 1, page, PAGE) == 0);
	CHECK(shmuring_claim_complete(communicator, claim.ref, 2, 99) == 0);
	CHECK(shmuring_claim_complete(communicator, claim.ref, 3, 99) == SHMURING_ERR_STALE);
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 0, page, PAGE) == SHMURING_ERR_STALE);
	CHECK(shmuring_page(backend, ref, 0, &got) == 0 && *(const char *)got == 'a');
	CHECK(shmuring_page(backend, ref, 1, &got) == 0 && *(const char *)got == 'b');
	done = finish(ref);
	CHECK(done.error == 0 && done.value == 2 && done.lsn == 99);
}

static void an_image_is_taken(void)
{
	static char image[PAGE], taken[PAGE];
	struct shmuring_request request;
	struct shmuring_claim claim;
	shmuring_ref ref;

	memset(&request, 0, sizeof(request));
	memset(image, 'w', sizeof(image));
	request.opcode = SHMURING_OP_WRITE_PAGE;
	request.rel_number = 1;
	request.count = 1;
	request.image = image;
	ref = submit(&request);
	claim = reap_one();
	CHECK(claim.claim_seq != 0);
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 0, image, PAGE) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_claim_take_image(communicator, claim.ref, 0, taken, PAGE) == 0);
	CHECK(shmuring_claim_suspend(communicator, claim.ref) == 0);
	CHECK(memcmp(image, taken, PAGE) == 0);
	CHECK(shmuring_claim_complete(communicator, claim.ref, 0, 0) == 0);
	CHECK(finish(ref).error == 0);
}

static void failures_have_an_errno(void)
{
	shmuring_ref ref = submit_read(1, 1);
	struct shmuring_claim claim = reap_one();
	struct shmuring_completion done;

	CHECK(shmuring_claim_fail(communicator, claim.ref, 0, 0, 1) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_claim_fail(communicator, claim.ref, 4096, 0, 1) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_claim_fail(communicator, claim.ref, -EIO, 0, 1) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_claim_fail(communicator, claim.ref, ENXIO, 0, 3) == 0);
	done = finish(ref);
	CHECK(done.error == ENXIO && done.attempts == 3);

	ref = submit_read(1, 1);
	CHECK(shmuring_claim_drop(communicator, reap_one().ref) == 0);
	CHECK(finish(ref).error == ECANCELED);
}

static void a_cancelled_claim_is_withdrawn_once(void)
{
	static char page[PAGE];
	struct shmuring_wait wait = soon();
	shmuring_ref ref = submit_read(1, 1);
	struct shmuring_claim claim = reap_one();

	CHECK(shmuring_cancel(backend, ref, &wait) == SHMURING_CANCEL_ABANDONED);
	CHECK(shmuring_claim_is_cancelled(communicator, claim.ref) == 1);
	CHECK(shmuring_claim_complete(communicator, claim.ref, 1, 0) == SHMURING_ERR_WITHDRAWN);
	CHECK(shmuring_claim_complete(communicator, claim.ref, 1, 0) == SHMURING_ERR_STALE);

	ref = submit_read(1, 1);
	claim = reap_one();
	CHECK(shmuring_cancel(backend, ref, &wait) == SHMURING_CANCEL_ABANDONED);
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 0, page, PAGE) == SHMURING_ERR_WITHDRAWN);
	CHECK(shmuring_claim_deliver(communicator, claim.ref, 0, page, PAGE) == SHMURING_ERR_STALE);

	ref = submit_read(1, 1);
	claim = reap_one();
	CHECK(shmuring_claim_begin_copy(communicator, claim.ref) == 0);
	CHECK(shmuring_cancel(backend, ref, &wait) == SHMURING_CANCEL_ABANDONED);
	CHECK(shmuring_claim_suspend(communicator, claim.ref) == SHMURING_ERR_WITHDRAWN);
	CHECK(shmuring_claim_fail(communicator, claim.ref, EIO, 0, 1) == SHMURING_ERR_STALE);
	CHECK(shmuring_backend_usable(backend) == SLOTS);
}

static void more_claims_than_there_is_room_for_come_next(void)
{
	struct shmuring_claim claims[SLOTS];
	shmuring_ref refs[5];
	int i;

	for (i = 0; i < 5; i++)
		refs[i] = submit_read((uint32_t)i, 1);
	CHECK(shmuring_communicator_reap(communicator, 9, claims, 2) == SHMURING_ERR_BAD_REQUEST);
	/* Also where nothing would be claimed. */
	CHECK(shmuring_communicator_reap(communicator, 9, claims, 0) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_communicator_reap_or_park(communicator, 9, claims, 0, 0) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_communicator_reap(communicator, SHMURING_STATE_COPYING, claims, 0) == 0);
	CHECK(shmuring_communicator_sweep(communicator, claims, 2) == 2);
	CHECK(shmuring_communicator_audit(communicator, claims + 2, 1) == 1);
	CHECK(shmuring_communicator_reap(communicator, SHMURING_STATE_COPYING, claims + 3, SLOTS) == 2);
	/* The hints of what was swept are stale by now. */
	CHECK(shmuring_communicator_reap(communicator, SHMURING_STATE_COPYING, claims + 5, 3) == 0);
	CHECK(shmuring_communicator_reap_or_park(communicator, SHMURING_STATE_COPYING, claims + 5, 3, 1000000) == 0);
	for (i = 0; i < 5; i++) {
		CHECK(claims[i].block < 5);
		CHECK(shmuring_claim_complete(communicator, claims[i].ref, 1, 0) == 0);
	}
	for (i = 0; i < 5; i++)
		CHECK(finish(refs[i]).error == 0);
}

static void *park(void *result)
{
	struct shmuring_claim claim;

	*(int *)result = shmuring_communicator_reap_or_park(communicator, SHMURING_STATE_PROCESSING, &claim, 1,
							    UINT64_MAX);
	return NULL;
}

static void a_second_reaper_is_refused_and_the_first_is_woken(void)
{
	struct shmuring_claim claim;
	pthread_t thread;
	int parked = 7, rc = 0, tries;

	CHECK(pthread_create(&thread, NULL, park, &parked) == 0);
	for (tries = 0; tries < 1000 && rc != -EBUSY; tries++) {
		usleep(100);
		rc = shmuring_communicator_reap(communicator, SHMURING_STATE_PROCESSING, &claim, 1);
	}
	CHECK(rc == -EBUSY);
	CHECK(shmuring_communicator_release_role(communicator) == -EBUSY);
	CHECK(shmuring_communicator_wake(communicator) == 0);
	CHECK(pthread_join(thread, NULL) == 0 && parked == 0);
}

static void a_forked_child_is_refused(void)
{
	shmuring_ref ref = submit_read(1, 1);
	struct shmuring_claim claim = reap_one();
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct shmuring_claim other;

		CHECK(shmuring_claim_complete(communicator, claim.ref, 1, 0) == SHMURING_ERR_WRONG_PROCESS);
		CHECK(shmuring_communicator_reap(communicator, SHMURING_STATE_COPYING, &other, 1) ==
		      SHMURING_ERR_WRONG_PROCESS);
		CHECK(shmuring_communicator_release_role(communicator) == SHMURING_ERR_WRONG_PROCESS);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(shmuring_claim_complete(communicator, claim.ref, 1, 0) == 0);
	CHECK(finish(ref).error == 0);
}

static void giving_up_the_role_answers_what_is_left(void)
{
	shmuring_ref claimed = submit_read(1, 1), waiting = submit_read(2, 1);
	uint32_t epoch = shmuring_communicator_epoch(communicator);
	struct shmuring_claim claim = reap_one();

	CHECK(claim.ref == claimed);
	CHECK(shmuring_communicator_release_role(communicator) == 1);
	CHECK(finish(claimed).error == ECANCELED);
	CHECK(shmuring_communicator_take_role(region, &communicator, NULL) == 0);
	CHECK(shmuring_communicator_epoch(communicator) == epoch + 1);
	CHECK(shmuring_communicator_inherited(communicator) == 0);
	CHECK(shmuring_communicator_sweep(communicator, &claim, 1) == 1 && claim.ref == waiting);
	CHECK(claim.claim_flags == 0);
	CHECK(shmuring_claim_complete(communicator, claim.ref, 1, 0) == 0);
	CHECK(finish(waiting).error == 0);
}

int main(void)
{
	struct shmuring_region_options options;
	struct shmuring_wait wait;

	memset(&options, 0, sizeof(options));
	options.slots = SLOTS;
	options.bounce_per_slot = 2;
	options.block_size = PAGE;
	CHECK(shmuring_region_create_memfd(&options, &region, NULL) == 0);
	CHECK(shmuring_communicator_take_role(region, &communicator, NULL) == 0);
	CHECK(shmuring_backend_attach(region, 0, SLOTS, &backend, NULL) == SLOTS);
	null_pointers_are_refused();
	the_role_is_one_s_alone();
	claims_that_are_none_are_refused();
	a_read_is_told_whole_and_answered_once();
	an_image_is_taken();
	failures_have_an_errno();
	a_cancelled_claim_is_withdrawn_once();
	more_claims_than_there_is_room_for_come_next();
	a_second_reaper_is_refused_and_the_first_is_woken();
	a_forked_child_is_refused();
	giving_up_the_role_answers_what_is_left();
	wait = soon();
	CHECK(shmuring_backend_detach(backend, &wait) == 0);
	CHECK(shmuring_backend_free(backend) == 0);
	CHECK(shmuring_communicator_release_role(communicator) == 0);
	CHECK(shmuring_region_detach(region) == 0);
	return 0;
}
