/*
 * Description: a handle of a backend in memory of the caller: how much it wants, that it takes that and nothing from the
 * heap, and that it works as any other. `given REGION` beside a communicator.
 */
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define COUNT 4
#define GUARD 64

/* Memory with bytes before and behind it that nobody may write. */
struct given {
	unsigned char *all, *at;
	size_t len;
};

static struct given given_of(size_t len)
{
	struct given g;

	g.len = len;
	g.all = (unsigned char *)malloc(len + 2 * GUARD);
	CHECK(g.all != NULL);
	memset(g.all, 0xa5, len + 2 * GUARD);
	g.at = g.all + GUARD;
	return g;
}

static void is_whole(const struct given *g)
{
	size_t i;

	for (i = 0; i < GUARD; i++)
		CHECK(g->all[i] == 0xa5 && g->at[g->len + i] == 0xa5);
}

static size_t on_the_heap(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
	return mallinfo2().uordblks;
#else
	return 0;
#endif
}

static size_t wanted(const struct shmuring_region *region, uint32_t count)
{
	size_t bytes = 0;

	GIVES(shmuring_backend_memory(region, count, &bytes), 0);
	return bytes;
}

static void refusals(struct shmuring_region *region, const struct given *g)
{
	struct shmuring_backend *b = NULL;
	struct shmuring_error err;
	size_t bytes = 7;

	GIVES(shmuring_backend_memory(NULL, 1, &bytes), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_memory(region, 1, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_memory(region, 0, &bytes), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_backend_memory(region, UINT32_MAX, &bytes), SHMURING_ERR_BAD_SLOT);
	CHECK(bytes == 7);
	GIVES(shmuring_backend_attach_in(region, 0, COUNT, NULL, g->len, &b, &err), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_attach_in(region, 0, COUNT, g->at, g->len - 1, &b, &err), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_attach_in(region, 0, COUNT, g->at, 0, &b, &err), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_attach_in(region, 0, COUNT, g->at + 4, g->len, &b, &err), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_attach_in(region, 0, COUNT, g->at, g->len, NULL, &err), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_attach_in(NULL, 0, COUNT, g->at, g->len, &b, &err), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_backend_attach_in(region, 1, UINT32_MAX, g->at, g->len, &b, &err), SHMURING_ERR_BAD_SLOT);
	GIVES(shmuring_backend_attach_in(region, 0, 0, g->at, g->len, &b, &err), SHMURING_ERR_BAD_SLOT);
	CHECK(b == NULL);
}

static void reads_with_every_slot(struct shmuring_backend *b)
{
	struct shmuring_wait wait = patience();
	struct shmuring_completion done;
	shmuring_ref refs[COUNT];
	const void *page;
	int round, i;

	for (round = 0; round < 100; round++) {
		for (i = 0; i < COUNT; i++) {
			refs[i] = shmuring_start_get_page(b, shmuring_rel_of(1, 2, 3, 0), (uint32_t)(round + i), 1);
			CHECK(refs[i] >= 0);
		}
		GIVES(shmuring_start_get_page(b, shmuring_rel_of(1, 2, 3, 0), 1, 1), SHMURING_ERR_NO_FREE_SLOT);
		for (i = 0; i < COUNT; i++) {
			GIVES(shmuring_wait(b, refs[i], &wait), 0);
			GIVES(shmuring_page(b, refs[i], 0, &page), 0);
			GIVES(*(const unsigned char *)page, (unsigned char)(round + i));
			GIVES(shmuring_finish(b, refs[i], &done), 0);
			GIVES(done.error, 0);
		}
	}
}

static void a_child_frees_what_it_inherited(struct shmuring_backend *b)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		GIVES(shmuring_submit(b, 0), SHMURING_ERR_WRONG_PROCESS);
		GIVES(shmuring_backend_free(b), 0);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

int main(int argc, char **argv)
{
	struct shmuring_wait wait = patience();
	struct shmuring_backend *b = NULL;
	struct shmuring_region *region;
	struct shmuring_error err;
	struct given g;
	size_t before;
	int round;

	if (argc != 2)
		return 2;
	region = region_at(argv[1]);
	CHECK(wanted(region, 2 * COUNT) > wanted(region, COUNT));
	g = given_of(wanted(region, COUNT));
	refusals(region, &g);
	for (round = 0; round < 2; round++) {
		before = on_the_heap();
		GIVES(shmuring_backend_attach_in(region, 0, COUNT, g.at, g.len, &b, &err), COUNT);
		CHECK((unsigned char *)b == g.at);
		CHECK(on_the_heap() == before);
		is_whole(&g);
		reads_with_every_slot(b);
		a_child_frees_what_it_inherited(b);
		reads_with_every_slot(b);
		CHECK(on_the_heap() == before);
		is_whole(&g);
		if (round == 0) {
			GIVES(shmuring_backend_detach(b, &wait), 0);
			GIVES(shmuring_submit(b, 0), SHMURING_ERR_DETACHED);
		}
		GIVES(shmuring_backend_free(b), 0);
		is_whole(&g);
		memset(g.at, 0x5a, g.len);
	}
	GIVES(shmuring_region_detach(region), 0);
	free(g.all);
	return 0;
}
