/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.c: the region of this server and its life (R1), in the postmaster, before redo begins. The startup hook runs
 * again in the same process after a crash of a backend: that is a new life, and nothing of the old one is used but the
 * watcher. With a communicator inside, the region goes with PostgreSQL's shared memory, and each life makes its own.
 */
#include "shmuring_ext.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

/* Slots behind those of processes, for tools. */
#define TOOL_SLOTS 32
/* How long a dying process of the life before may hold it, ms. */
#define LIFE_PATIENCE 5000
/* How long a communicator may take to be there, ms. */
#define COMMUNICATOR_PATIENCE 5000
/* How long a communicator may take to drain, ms. */
#define DRAIN_PATIENCE 60000
/* What a region's memory is aligned to. */
#define REGION_ALIGNMENT 128

struct shx_shared *shx_shared = NULL;
int shx_region_fd = -1;

/* Inside: the region in PostgreSQL's shared memory, which this life has at the same place in all of its processes. */
static void *memory = NULL;
static size_t memory_bytes = 0;

/* The postmaster's alone: in its children these are handles of another process. */
static struct shmuring_region *region = NULL;
static struct shmuring_server *life = NULL;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;

const char *shx_region_file(void)
{
	static char by_default[MAXPGPATH];

	if (shx_home == SHX_INSIDE) {
		snprintf(by_default, sizeof(by_default), "%s/shmuring.lock", DataDir);
		return by_default;
	}
	if (shx_region_path != NULL && shx_region_path[0] != '\0')
		return shx_region_path;
	snprintf(by_default, sizeof(by_default), "/dev/shm/shmuring." UINT64_FORMAT ".%d", GetSystemIdentifier(),
		 PostPortNumber);
	return by_default;
}

static void fail(int code, const char *text, const char *doing) __attribute__((__noreturn__));

static void fail(int code, const char *text, const char *doing)
{
	const char *why = text != NULL ? text : shmuring_strerror(code);

	ereport(FATAL,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("could not %s \"%s\": %s", doing, shx_region_file(), why)));
}

/* Sleeps so many ms, unless the server is told to stop: its signals are blocked here, so they are looked for. */
static void pause_startup(int ms)
{
	static const int stops[] = { SIGTERM, SIGINT, SIGQUIT };
	sigset_t pending;
	size_t i;

	for (i = 0; sigpending(&pending) == 0 && i < lengthof(stops); i++)
		if (sigismember(&pending, stops[i]) == 1)
			ereport(FATAL, (errcode(ERRCODE_ADMIN_SHUTDOWN),
					errmsg("the start was cancelled while it waited for region \"%s\"",
					       shx_region_file())));
	pg_usleep((long)ms * 1000);
}

static bool has_communicator(void)
{
	struct shmuring_region_info info;

	return shmuring_region_info(region, &info) == 0 && info.communicator != 0;
}

/* Anybody may make files in /dev/shm: whoever has made ours could read and answer all that goes through it. */
static void refuse_foreign(void)
{
	struct stat st;
	int fd = shmuring_region_fd(region);

	/* Inside it is PostgreSQL's memory. */
	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0)
		ereport(FATAL, (errcode_for_file_access(),
				errmsg("could not stat region \"%s\": %m", shx_region_file())));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		ereport(FATAL, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("could not begin to use region \"%s\": it belongs to another user",
				       shx_region_file()),
				errhint("Remove the file, or have shmuring.region name another one.")));
}

/* Begins a life; another server's is an error, but one whose last process is just dying is waited for. */
static void begin_life(void)
{
	uint64 until = shmuring_deadline_ms(LIFE_PATIENCE);
	struct shmuring_error err;
	int code;

	refuse_foreign();
	while ((code = shmuring_server_begin(region, GetSystemIdentifier(), &life, &err)) < 0) {
		life = NULL;
		if (code != SHMURING_ERR_LIFE_HELD || shmuring_deadline_ms(0) >= until)
			ereport(FATAL, (errcode(ERRCODE_OBJECT_IN_USE),
					errmsg("could not begin to use region \"%s\": %s", shx_region_file(), err.text),
					errhint("Each server needs a region of its own: see shmuring.region.")));
		pause_startup(10);
	}
}

/* Settles what older lives left: nothing of theirs may run once redo has begun. */
static void settle(void)
{
	struct shmuring_leftover left;
	int code;

	do {
		struct shmuring_wait wait = { shmuring_deadline_ms(1000), NULL, 0 };

		code = shmuring_server_next_leftover(life, &wait, &left);
		if (code == 1) {
			shx_log_leftover(&left);
		} else if (code == SHMURING_ERR_TIMED_OUT || code == SHMURING_ERR_COMMUNICATOR_GONE ||
			   code == SHMURING_ERR_OWNER_ALIVE || code == SHMURING_ERR_INTERRUPTED) {
			ereport(LOG, (errmsg("waiting for requests of earlier servers in region \"%s\": %s",
					     shx_region_file(), shmuring_strerror(code))));
			pause_startup(code == SHMURING_ERR_OWNER_ALIVE ? 1000 : 1);
		} else if (code < 0) {
			fail(code, NULL, "settle requests of earlier servers in");
		}
	} while (code != 0);
}

static void leave(void)
{
	(void)shmuring_server_end(life);
	life = NULL;
	(void)shmuring_region_detach(region);
	region = NULL;
	shx_region_fd = -1;
}

static void leave_memory(int code, Datum arg)
{
	leave();
	memory = NULL;
}

/* Takes a region of other sizes out of the way, once nothing of an earlier server is in it. */
static void replace(void)
{
	uint64 until = shmuring_deadline_ms(DRAIN_PATIENCE);
	uint64 there = shmuring_deadline_ms(COMMUNICATOR_PATIENCE);
	struct shmuring_error err;
	int code;

	if (shx_home == SHX_EXTERNAL)
		ereport(FATAL, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("region \"%s\" was made for other settings", shx_region_file()),
				errhint("Stop its communicator, remove the file, and start the server again.")));
	code = shmuring_region_attach(shx_region_file(), &region, &err);
	if (code < 0)
		fail(code, err.text, "attach region");
	begin_life();
	shx_watcher_start();
	settle();
	/* One that comes after the region is gone would make another. */
	while (shx_watcher_lives() && !has_communicator() && shmuring_deadline_ms(0) < there)
		pause_startup(10);
	shx_watcher_stop();
	while (has_communicator()) {
		if (shmuring_deadline_ms(0) >= until)
			fail(SHMURING_ERR_ROLE_HELD, NULL, "replace region");
		pause_startup(10);
	}
	code = shmuring_region_unlink(shx_region_file());
	if (code < 0)
		fail(code, NULL, "remove region");
	leave();
	ereport(LOG, (errmsg("removed region \"%s\", which was made for other settings", shx_region_file())));
}

static struct shmuring_region_options sizes(void)
{
	struct shmuring_region_options options;

	memset(&options, 0, sizeof(options));
	options.slots = shx_first_slot(shx_processes()) + TOOL_SLOTS;
	options.bounce_per_slot = (uint32)shx_bounce_per_slot;
	options.block_size = BLCKSZ;
	/* Relations change by PostgreSQL's own files, not by requests alone (R2). */
	options.rel_sizes = SHMURING_NONE;
	return options;
}

static size_t bytes_of_region(void)
{
	struct shmuring_region_options options = sizes();
	uint64 bytes = 0;
	int code = shmuring_region_size(&options, &bytes);

	if (code < 0)
		fail(code, NULL, "size region");
	return bytes;
}

/* Makes the region in PostgreSQL's shared memory, which is new in each life: nothing of an older one is in it. */
static void make_inside(void)
{
	struct shmuring_region_options options = sizes();
	struct shmuring_error err;
	bool found;
	int code;

	memory_bytes = bytes_of_region();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct("shmuring region", memory_bytes + REGION_ALIGNMENT, &found);
	LWLockRelease(AddinShmemInitLock);
	memory = (void *)TYPEALIGN(REGION_ALIGNMENT, memory);
	code = shmuring_region_init(memory, memory_bytes, &options, shx_region_file(), &region, &err);
	if (code < 0) {
		region = NULL;
		fail(code, err.text, "make region");
	}
	/* Before PostgreSQL unmaps it, for good or for another life. */
	on_shmem_exit(leave_memory, (Datum)0);
}

const void *shx_region_memory(void)
{
	return memory;
}

int shx_region_attach(struct shmuring_region **out, struct shmuring_error *err)
{
	int code;

	if (memory == NULL)
		return shmuring_region_attach_fd(shx_region_fd, out, err);
	code = shmuring_region_attach_memory(memory, memory_bytes, shx_region_file(), out, err);
	if (code < 0)
		return code;
	code = shmuring_region_register_pool(*out, SHX_SHARED_BUFFERS, BufferBlocks, BLCKSZ, (uint32)NBuffers, err);
	if (code < 0)
		(void)shmuring_region_detach(*out);
	return code;
}

static void open_region(void)
{
	struct shmuring_region_options options = sizes();
	struct shmuring_error err;
	int code;

	code = shmuring_region_create(shx_region_file(), &options, &region, &err);
	if (code == SHMURING_ERR_EXISTS) {
		replace();
		code = shmuring_region_create(shx_region_file(), &options, &region, &err);
	}
	if (code < 0) {
		region = NULL;
		fail(code, err.text, "make region");
	}
	shx_region_fd = shmuring_region_fd(region);
}

static void request(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(struct shx_shared)));
	if (shx_home == SHX_INSIDE)
		RequestAddinShmemSpace(bytes_of_region() + REGION_ALIGNMENT);
	RequestNamedLWLockTranche("shmuring", 1);
}

static void startup(void)
{
	bool found;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shx_shared = ShmemInitStruct("shmuring", sizeof(struct shx_shared), &found);
	if (!found) {
		memset(shx_shared, 0, sizeof(struct shx_shared));
		pg_atomic_init_u64(&shx_shared->compared, 0);
		pg_atomic_init_u64(&shx_shared->differed, 0);
		shx_shared->lock = &GetNamedLWLockTranche("shmuring")->lock;
	}
	LWLockRelease(AddinShmemInitLock);

	if (region != NULL)
		leave();
	if (shx_home == SHX_INSIDE)
		make_inside();
	else
		open_region();
	begin_life();
	if (shx_home == SHX_BESIDE)
		shx_watcher_start();
	settle();
}

void shx_server_init(void)
{
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}
