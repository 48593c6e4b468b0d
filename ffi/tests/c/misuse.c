/*
 * Description: every way to use a handle wrongly is refused by name, and changes nothing. `misuse REGION`; nobody
 * serves.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define COUNT 4

static struct shmuring_rel rel(void)
{
	return shmuring_rel_of(1663, 5, 16384, 0);
}

static void null_pointers(struct shmuring_region *region, struct shmuring_backend *b)
{
	struct shmuring_wait wait = patience();
	struct shmuring_request request;
	struct shmuring_completion done;
	struct shmuring_backend *other = NULL;
	struct shmuring_error err;
	shmuring_ref ref = shmuring_fill_get_page(b, 0, rel(), 1, 1);

	CHECK(ref >= 0);
	shmuring_prep_nop(&request);
	memset(&err, 0xff, sizeof err);
	GIVES(shmuring_backend_attach(NULL, 0, 1, &other, &err), SHMURING_ERR_BAD_MEMORY);
	CHECK(err.code == SHMURING_ERR_BAD_MEMORY && strcmp(err.text, "a pointer is null") == 0 && other == NULL);
	GIVES(shmuring_backend_attach(region, COUNT, 1, NULL, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_region_attach(NULL, &region, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_region_info(region, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_region_fd(NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_usable(NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_free_slot(NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_fill(NULL, 0, &request), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_fill(b, 1, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_fill_get_page(NULL, 1, rel(), 1, 1), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_start_get_page(NULL, rel(), 1, 1), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_submit(NULL, ref), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_submit_many(b, NULL, 1), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_wait(b, ref, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_wait_any(b, NULL, 1, &wait), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_result(b, ref, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_page(b, ref, 0, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_finish(NULL, ref, &done), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_call(b, &request, &wait, NULL, 8192, &done), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_call(b, &request, &wait, NULL, 0, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_next_leftover(b, &wait, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_server_settle(NULL, &wait), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_server_next_leftover(NULL, &wait, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_free(NULL), 0);
	GIVES(shmuring_region_detach(NULL), 0);
	GIVES(shmuring_server_end(NULL), 0);
	GIVES(shmuring_cancel(b, ref, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_state(b, 0), SHMURING_STATE_FILLING);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_CANCEL_WITHDRAWN);

	/* Stated without a look; told by the fill. */
	shmuring_prep_get_page(&request, rel(), 1, 1, 1);
	shmuring_set_block_lsns(&request, NULL);
	GIVES(shmuring_fill(b, 1, &request), SHMURING_ERR_BAD_REQUEST);
	shmuring_prep_write_page(&request, rel(), 1, 1, 1, NULL);
	GIVES(shmuring_fill(b, 1, &request), SHMURING_ERR_BAD_REQUEST);
	shmuring_prep_extend(&request, rel(), 1, 1, NULL);
	GIVES(shmuring_fill(b, 1, &request), SHMURING_ERR_BAD_REQUEST);
	GIVES(shmuring_state(b, 1), SHMURING_STATE_IDLE);
}

static void numbers_out_of_range(struct shmuring_region *region, struct shmuring_backend *b)
{
	struct shmuring_backend *other = NULL;
	struct shmuring_wait wait = patience();
	struct shmuring_request r;
	struct shmuring_rel bad;
	shmuring_ref none[2] = {-1, SHMURING_ERR_STALE};

	GIVES(shmuring_backend_attach(region, 1000, 1, &other, NULL), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_backend_attach(region, 1, UINT32_MAX, &other, NULL), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_backend_attach(region, 1, 0, &other, NULL), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_fill_get_page(b, COUNT, rel(), 1, 1), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_fill_get_page(b, 0, rel(), UINT32_MAX, 1), SHMURING_ERR_BAD_COUNT);
	GIVES(shmuring_fill_get_page(b, 0, shmuring_rel_of(1, 2, 3, 4), 1, 1), SHMURING_ERR_BAD_REQUEST);
	bad = rel();
	bad.reserved[2] = 1;
	GIVES(shmuring_fill_get_page(b, 0, bad, 1, 1), SHMURING_ERR_BAD_REQUEST);
	GIVES(shmuring_start_get_page(b, bad, 1, 1), SHMURING_ERR_BAD_REQUEST);
	GIVES(shmuring_submit(b, none[0]), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_submit_many(b, none, 2), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_wait(b, none[1], &wait), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_wait_any(b, none, 0, &wait), SHMURING_ERR_BAD_COUNT);
	GIVES(shmuring_finish(b, none[0], NULL), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_cancel(b, none[0], &wait), SHMURING_ERR_BAD_SLOT);
	shmuring_prep_get_page(&r, rel(), 1, 33, 1);
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_COUNT);
	shmuring_prep_get_page(&r, rel(), 1, 0, 1);
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_COUNT);
	shmuring_prep(&r, 16, rel(), 1);
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_OPCODE);
	wait.reserved = 1;
	GIVES(shmuring_wait(b, 0, &wait), SHMURING_ERR_BAD_REQUEST);
	GIVES(shmuring_backend_usable(b), COUNT);
}

/* What a request must not carry is refused, whichever field it is in. */
static void fields_not_taken(struct shmuring_backend *b)
{
	static const uint64_t lsns[1] = {1};
	static const uint32_t buffers[1] = {0};
	static const char image[8192] = {0};
	struct shmuring_request good, r;
	int i;

	shmuring_prep_get_page(&good, rel(), 1, 1, 1);
	for (i = 0; i < 9; i++) {
		r = good;
		switch (i) {
		case 0: r.reserved = 1; break;
		case 1: r.reserved2 = 1; break;
		case 2: r.reserved3[0] = 1; break;
		case 3: r.reserved3[1] = 1; break;
		case 4: r.image = image; break;
		case 5: r.buffers = buffers; break;
		case 6: r.block_lsns = lsns; break;
		case 7: r.flags = SHMURING_FLAG_BLOCK_LSNS; break;
		default: r.flags = 0x40; break;
		}
		GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_REQUEST);
	}
	r = good;
	shmuring_set_buffers(&r, 3, buffers);
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_POOL);
	shmuring_prep_write_page(&r, rel(), 1, 1, 1, NULL);
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_REQUEST);
	shmuring_prep_nop(&r);
	r.pool = 3;
	GIVES(shmuring_fill(b, 0, &r), SHMURING_ERR_BAD_REQUEST);
	GIVES(shmuring_backend_usable(b), COUNT);
}

static void wrong_order(struct shmuring_backend *b)
{
	struct shmuring_wait wait = patience();
	shmuring_ref ref = shmuring_fill_get_page(b, 0, rel(), 1, 1);
	shmuring_ref twice[2];

	CHECK(ref >= 0);
	twice[0] = twice[1] = ref;
	GIVES(shmuring_fill_get_page(b, 0, rel(), 1, 1), SHMURING_ERR_SLOT_BUSY);
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_NOT_COMPLETED);
	GIVES(shmuring_finish(b, ref, NULL), SHMURING_ERR_NOT_COMPLETED);
	GIVES(shmuring_submit_many(b, twice, 2), SHMURING_ERR_NOT_FILLING);
	GIVES(shmuring_submit(b, ref + ((shmuring_ref)1 << 32)), SHMURING_ERR_STALE);
	GIVES(shmuring_submit(b, ref), 0);
	GIVES(shmuring_submit(b, ref), SHMURING_ERR_NOT_FILLING);
	GIVES(shmuring_poll(b, ref), 0);
	GIVES(shmuring_finish(b, ref, NULL), SHMURING_ERR_NOT_COMPLETED);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_CANCEL_WITHDRAWN);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_ERR_STALE);
	GIVES(shmuring_submit(b, ref), SHMURING_ERR_NOT_FILLING);
	GIVES(shmuring_backend_usable(b), COUNT - 1);
}

static void *elsewhere(void *handle)
{
	struct shmuring_backend *b = (struct shmuring_backend *)handle;
	struct shmuring_wait wait = patience();

	GIVES(shmuring_free_slot(b), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_fill_get_page(b, 1, rel(), 1, 1), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_start_get_page(b, rel(), 1, 1), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_submit(b, 1), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_wait(b, 1, &wait), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_finish(b, 1, NULL), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_backend_detach(b, &wait), SHMURING_ERR_WRONG_THREAD);
	return NULL;
}

/* Everything in a child that inherited the handle, which it then frees. */
static int in_child(struct shmuring_region *region, struct shmuring_backend *b, shmuring_ref ref)
{
	struct shmuring_wait wait = patience();
	struct shmuring_backend *own = NULL;
	struct shmuring_error err;

	GIVES(shmuring_fill_get_page(b, 1, rel(), 1, 1), SHMURING_ERR_WRONG_PROCESS);
	GIVES(shmuring_submit(b, ref), SHMURING_ERR_WRONG_PROCESS);
	GIVES(shmuring_poll(b, ref), SHMURING_ERR_WRONG_PROCESS);
	GIVES(shmuring_state(b, 2), SHMURING_ERR_WRONG_PROCESS);
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_WRONG_PROCESS);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_ERR_WRONG_PROCESS);
	GIVES(shmuring_backend_detach(b, &wait), SHMURING_ERR_WRONG_PROCESS);
	GIVES(shmuring_backend_attach(region, COUNT, 1, &own, &err), SHMURING_ERR_WRONG_PROCESS);
	CHECK(strstr(err.text, "fork") != NULL);
	GIVES(shmuring_backend_free(b), 0);
	GIVES(shmuring_region_detach(region), 0);
	return 0;
}

static void after_fork(struct shmuring_region *region, struct shmuring_backend *b)
{
	struct shmuring_wait wait = patience();
	shmuring_ref ref = shmuring_fill_get_page(b, 2, rel(), 1, 1);
	int status = -1;
	pid_t pid;

	CHECK(ref >= 0);
	pid = fork();
	if (pid == 0)
		_exit(in_child(region, b, ref));
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	/* The child's end of the handle was no end of ours. */
	GIVES(shmuring_submit(b, ref), 0);
	GIVES(shmuring_poll(b, ref), 0);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_CANCEL_WITHDRAWN);
}

/* Whether a call succeeds or fails, and whatever it asks of the system. */
static void errno_stays_as_it_is(const char *path, struct shmuring_region *region)
{
	struct shmuring_wait wait = patience();
	struct shmuring_region_info info;
	struct shmuring_region *other;
	struct shmuring_backend *b;
	shmuring_ref ref;

	errno = ERANGE;
	GIVES(shmuring_region_attach("/nonexistent", &other, NULL), -ENOENT);
	GIVES(shmuring_region_unlink("/nonexistent"), -ENOENT);
	GIVES(shmuring_region_attach(path, &other, NULL), 0);
	CHECK(shmuring_backend_attach(region, 0, COUNT, &b, NULL) > 0);
	GIVES(shmuring_region_info(region, &info), 0);
	ref = shmuring_start_get_page(b, rel(), 1, 1);
	CHECK(ref >= 0);
	wait.until = shmuring_deadline_ms(2);
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_COMMUNICATOR_GONE);
	GIVES(shmuring_wait_any(b, &ref, 1, &wait), SHMURING_ERR_COMMUNICATOR_GONE);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_CANCEL_WITHDRAWN);
	GIVES(shmuring_backend_free(b), 0);
	GIVES(shmuring_region_detach(other), 0);
	GIVES(errno, ERANGE);
}

/* The kernel would not watch it, and the wait would be a busy one. */
static void an_interrupt_word_that_is_not_aligned(struct shmuring_region *region)
{
	struct shmuring_backend *b = backend_of(region, COUNT, 1);
	struct shmuring_wait wait = patience();
	shmuring_ref ref = shmuring_start_get_page(b, rel(), 1, 1);
	static int words[2];

	CHECK(ref >= 0);
	wait.interrupt = (const volatile int *)(const volatile void *)((const char *)words + 1);
	GIVES(shmuring_wait(b, ref, &wait), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_ERR_BAD_MEMORY);
	wait.interrupt = words;
	GIVES(shmuring_cancel(b, ref, &wait), SHMURING_CANCEL_WITHDRAWN);
	GIVES(shmuring_backend_free(b), 0);
}

static struct shmuring_server *server_of(struct shmuring_region *region)
{
	struct shmuring_server *server = NULL;

	CHECK(shmuring_server_begin(region, 7, &server, NULL) > 0 && server != NULL);
	return server;
}

static void *elsewhere_too(void *handle)
{
	struct shmuring_server *server = (struct shmuring_server *)handle;
	struct shmuring_wait wait = patience();
	struct shmuring_leftover left;

	GIVES(shmuring_server_settle(server, &wait), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_server_next_leftover(server, &wait, &left), SHMURING_ERR_WRONG_THREAD);
	GIVES(shmuring_server_reset_written(server, 1000), SHMURING_ERR_WRONG_THREAD);
	return NULL;
}

/* The life of a server: of its thread and process alone, however far its leftovers are settled. */
static void a_server(const char *path, struct shmuring_region *region)
{
	struct shmuring_region *second = region_at(path);
	struct shmuring_server *server = server_of(region), *other = NULL;
	struct shmuring_wait wait = patience();
	struct shmuring_leftover left;
	pthread_t thread;
	uint64_t floor;
	int status = -1;
	pid_t pid;

	CHECK(pthread_create(&thread, NULL, elsewhere_too, server) == 0 && pthread_join(thread, NULL) == 0);
	/* One of several: the handle holds all slots now. */
	GIVES(shmuring_server_next_leftover(server, &wait, &left), 1);
	pid = fork();
	if (pid == 0) {
		GIVES(shmuring_server_next_leftover(server, &wait, &left), SHMURING_ERR_WRONG_PROCESS);
		GIVES(shmuring_server_settle(server, &wait), SHMURING_ERR_WRONG_PROCESS);
		GIVES(shmuring_server_reset_written(server, 1000), SHMURING_ERR_WRONG_PROCESS);
		GIVES(shmuring_server_begin(region, 7, &other, NULL), SHMURING_ERR_WRONG_PROCESS);
		GIVES(shmuring_server_end(server), 0);
		GIVES(shmuring_region_detach(second), 0);
		GIVES(shmuring_region_detach(region), 0);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	/* The child's end of the handle was no end of ours: neither of the life nor of its hold on the slots. */
	GIVES(shmuring_server_begin(second, 8, &other, NULL), SHMURING_ERR_LIFE_HELD);
	GIVES(shmuring_written_floor(region, &floor), 0);
	CHECK(floor < 1000);
	while (shmuring_server_next_leftover(server, &wait, &left) == 1)
		CHECK(left.fate == SHMURING_FATE_WITHDRAWN);
	GIVES(shmuring_server_settle(server, &wait), 0);
	GIVES(shmuring_server_end(server), 0);
	server = server_of(second);
	GIVES(shmuring_server_end(server), 0);
	GIVES(shmuring_region_detach(second), 0);
}

/* Leaves two reads that nobody has claimed. */
static void leave_two(struct shmuring_region *region)
{
	struct shmuring_backend *b = backend_of(region, COUNT + 1, 2);

	CHECK(shmuring_start_get_page(b, rel(), 1, 1) >= 0 && shmuring_start_get_page(b, rel(), 2, 1) >= 0);
	GIVES(shmuring_backend_free(b), 0);
}

int main(int argc, char **argv)
{
	struct shmuring_wait wait = patience();
	struct shmuring_backend *b, *other = NULL;
	struct shmuring_region *region;
	struct shmuring_error err;
	pthread_t thread;

	if (argc != 2)
		return 2;
	region = region_at(argv[1]);
	b = backend_of(region, 0, COUNT);
	GIVES(shmuring_backend_attach(region, 1, 1, &other, &err), SHMURING_ERR_OWNER_ALIVE);
	CHECK(other == NULL && err.code == SHMURING_ERR_OWNER_ALIVE && strstr(err.text, "owns these slots") != NULL);
	null_pointers(region, b);
	numbers_out_of_range(region, b);
	fields_not_taken(b);
	wrong_order(b);
	CHECK(pthread_create(&thread, NULL, elsewhere, b) == 0 && pthread_join(thread, NULL) == 0);
	after_fork(region, b);

	GIVES(shmuring_region_detach(region), SHMURING_ERR_IN_USE);
	GIVES(shmuring_region_register_pool(region, 1, region, 8192, 1, NULL), SHMURING_ERR_IN_USE);
	GIVES(shmuring_backend_detach(b, &wait), 0);
	GIVES(shmuring_submit(b, 0), SHMURING_ERR_DETACHED);
	GIVES(shmuring_poll(b, 0), SHMURING_ERR_DETACHED);
	GIVES(shmuring_fill_get_page(b, 1, rel(), 1, 1), SHMURING_ERR_DETACHED);
	GIVES(shmuring_backend_detach(b, &wait), SHMURING_ERR_DETACHED);
	GIVES(shmuring_backend_attach(region, 0, 1, &other, NULL), 0);
	GIVES(shmuring_backend_free(other), 0);
	GIVES(shmuring_backend_free(b), 0);

	errno_stays_as_it_is(argv[1], region);
	an_interrupt_word_that_is_not_aligned(region);
	leave_two(region);
	a_server(argv[1], region);
	GIVES(shmuring_region_detach(region), 0);
	return 0;
}
