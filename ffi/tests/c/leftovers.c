/*
 * Description: a region in memory of the caller, and what an owner leaves in it. `leftovers LOCKFILE`; nobody serves.
 */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define PAGE 8192

static struct shmuring_rel rel(void)
{
	return shmuring_rel_of(1663, 5, 16384, 0);
}

/* Attaches by itself, submits a read and a create, fills another read, and dies with all of it in flight. */
static int dies(void *base, size_t len, const char *lock)
{
	struct shmuring_region *region = NULL;
	struct shmuring_request create;
	struct shmuring_backend *b;

	GIVES(shmuring_region_attach_memory(base, len, lock, &region, NULL), 0);
	b = backend_of(region, 0, 4);
	CHECK(shmuring_start_get_page(b, rel(), 3, 1) >= 0);
	shmuring_prep_create(&create, rel(), 1);
	CHECK(shmuring_start(b, &create) >= 0);
	CHECK(shmuring_fill_get_page(b, 3, rel(), 5, 1) >= 0);
	return 0;
}

static void next_owner(struct shmuring_region *region)
{
	struct shmuring_wait brief = {0, NULL, 0};
	struct shmuring_backend *b = backend_of(region, 0, 4);
	struct shmuring_leftover left;
	struct shmuring_server *server = NULL, *other = NULL;
	struct shmuring_error err;
	int life;

	/* The read was cancelled, so only a communicator can give its slot back; the create still waits for one. */
	GIVES(shmuring_next_leftover(b, &brief, &left), 1);
	CHECK(left.fate == SHMURING_FATE_WITHDRAWN && left.request.opcode == SHMURING_OP_GET_PAGE);
	CHECK(left.request.block == 3 && left.request.rel_number == 16384 && left.result.error == 0);
	GIVES(shmuring_next_leftover(b, &brief, &left), SHMURING_ERR_COMMUNICATOR_GONE);
	GIVES(shmuring_backend_detach(b, &brief), SHMURING_ERR_COMMUNICATOR_GONE);

	/* A new server life: the create must never run. */
	life = shmuring_server_begin(region, 42, &server, &err);
	CHECK(life > 0);
	GIVES(shmuring_server_begin(region, 42, &other, &err), SHMURING_ERR_LIFE_HELD);
	CHECK(other == NULL && err.code == SHMURING_ERR_LIFE_HELD && strlen(err.text) > 0);
	GIVES(shmuring_server_settle(server, &brief), SHMURING_ERR_OWNER_ALIVE);
	GIVES(shmuring_region_detach(region), SHMURING_ERR_IN_USE);
	GIVES(shmuring_backend_free(b), 0);
	GIVES(shmuring_server_next_leftover(server, &brief, NULL), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_server_next_leftover(server, &brief, &left), 1);
	CHECK(left.fate == SHMURING_FATE_OWNER_DEAD && left.request.opcode == SHMURING_OP_CREATE);
	/* It holds the slots in between. */
	GIVES(shmuring_server_settle(server, &brief), SHMURING_ERR_OWNER_ALIVE);
	GIVES(shmuring_server_next_leftover(server, &brief, &left), 0);
	GIVES(shmuring_server_settle(server, &brief), 0);
	GIVES(shmuring_region_detach(region), SHMURING_ERR_IN_USE);
	GIVES(shmuring_server_end(server), 0);
	CHECK(shmuring_server_begin(region, 42, &server, NULL) == life + 1);
	GIVES(shmuring_server_end(server), 0);
}

int main(int argc, char **argv)
{
	struct shmuring_region_options options = {8, 2, PAGE, 0, 0, {0, 0, 0}};
	struct shmuring_region *region = NULL;
	struct shmuring_region_info info;
	struct shmuring_error err;
	uint64_t bytes = 0;
	int status = -1;
	void *base;
	pid_t pid;

	if (argc != 2)
		return 2;
	GIVES(shmuring_region_size(&options, &bytes), 0);
	base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(base != MAP_FAILED);
	GIVES(shmuring_region_attach_memory(base, (size_t)bytes, argv[1], &region, &err), -ENOENT);
	CHECK(strcmp(err.text, strerror(ENOENT)) == 0);
	GIVES(shmuring_region_init((char *)base + 64, (size_t)bytes, &options, argv[1], &region, &err),
	      SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_region_init(base, (size_t)bytes - 1, &options, argv[1], &region, &err), SHMURING_ERR_BAD_MEMORY);
	GIVES(shmuring_region_init(base, (size_t)bytes, &options, argv[1], &region, &err), 0);
	GIVES(shmuring_region_fd(region), -ENOENT);
	GIVES(shmuring_region_info(region, &info), 0);
	CHECK(info.bytes == bytes && info.slots == 8 && info.bounce_per_slot == 2 && info.communicator == 0);

	pid = fork();
	if (pid == 0)
		_exit(dies(base, (size_t)bytes, argv[1]));
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	next_owner(region);
	GIVES(shmuring_region_detach(region), 0);
	GIVES(shmuring_region_attach_memory(base, (size_t)bytes, argv[1], &region, &err), 0);
	GIVES(shmuring_region_detach(region), 0);
	memset(base, 0, 8);
	GIVES(shmuring_region_attach_memory(base, (size_t)bytes, argv[1], &region, &err), SHMURING_ERR_WRONG_MAGIC);
	return 0;
}
