/*
 * Description: the communicator of shmuring inside a C process.
 *
 * host check REGION SERVICE CACHE-FILE: its whole life, twice, and its misuse; exits 0, or names the line of the first
 * check that failed. host serve REGION SERVICE: serves until SIGTERM, with the log on stderr.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shmuring.h"
#include "shmuring/host.h"

#define CHECK(condition)                                                        \
	do {                                                                    \
		if (!(condition)) {                                             \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
			exit(1);                                                \
		}                                                               \
	} while (0)
#define PAGE 8192
/* Every signal but KILL, STOP, and the two that the C library keeps for itself. */
#define ALL_SIGNALS 0xfffffffe7ffbfeffULL

static struct shmuring_host_config config_of(const char *region, const char *service)
{
	struct shmuring_host_config config;

	memset(&config, 0, sizeof(config));
	config.size = sizeof(config);
	config.region_path = region;
	config.service = service;
	return config;
}

/* Stores what /proc says of a thread in `value`: nothing if it is gone. */
static void status_of(const char *task, const char *field, char value[32])
{
	char path[64], line[256];
	FILE *status;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", task);
	status = fopen(path, "r");
	value[0] = 0;
	if (status == NULL)
		return;
	while (fgets(line, sizeof(line), status) != NULL) {
		if (strncmp(line, field, strlen(field)) == 0)
			sscanf(line + strlen(field), ": %31s", value);
	}
	fclose(status);
}

/* True if a thread has ended: the kernel says that of it, or nothing, and then knows no more of its signals. */
static int has_ended(const char *task)
{
	char state[32];

	status_of(task, "State", state);
	return state[0] == 0 || state[0] == 'X' || state[0] == 'Z';
}

/* How many threads there are beside this one; all signals must be blocked in each. */
static int other_threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *task;
	char blocked[32], self[32];
	int n = 0;

	CHECK(tasks != NULL);
	snprintf(self, sizeof(self), "%ld", (long)getpid());
	while ((task = readdir(tasks)) != NULL) {
		if (task->d_name[0] == '.' || strcmp(task->d_name, self) == 0)
			continue;
		status_of(task->d_name, "SigBlk", blocked);
		/* More than all: the C library blocks its own, too, around the birth of a thread. */
		CHECK((strtoull(blocked, NULL, 16) & ALL_SIGNALS) == ALL_SIGNALS || has_ended(task->d_name));
		n++;
	}
	closedir(tasks);
	return n;
}

/* The writer of a cache file ends by itself, once nothing can come any more. */
static void all_threads_end(void)
{
	const struct timespec tick = { 0, 1000000 };
	char pid[32], threads[32];
	int tries;

	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	for (tries = 0; tries < 20000; tries++) {
		status_of(pid, "Threads", threads);
		if (strcmp(threads, "1") == 0)
			return;
		nanosleep(&tick, NULL);
	}
	CHECK(!"threads are left");
}

/* Reads that the page cache answered. */
static unsigned long long cache_hits(const struct shmuring_region *region)
{
	struct shmuring_role_stats stats;

	CHECK(shmuring_role_statistics(region, &stats) == 0);
	return (unsigned long long)stats.counters[SHMURING_ROLE_CACHE_HITS];
}

static void refused(const struct shmuring_host_config *config, int code, const char *text)
{
	struct shmuring_host *host = NULL;
	struct shmuring_error err;
	int rc;

	memset(&err, 0, sizeof(err));
	rc = shmuring_host_start(config, &host, &err);
	if (rc != code || host != NULL || err.code != code || strstr(err.text, text) == NULL) {
		fprintf(stderr, "%d (%s) in place of %d (%s)\n", rc, err.text, code, text);
		exit(1);
	}
}

static void configurations_that_make_no_sense_are_refused(const char *region, const char *service)
{
	struct {
		struct shmuring_host_config known;
		uint64_t unknown;
	} longer;
	struct shmuring_host_config config = config_of(region, service);
	struct shmuring_host *host = NULL;

	refused(NULL, SHMURING_ERR_BAD_MEMORY, "null");
	CHECK(shmuring_host_start(&config, NULL, NULL) == SHMURING_ERR_BAD_MEMORY);
	config.size = 0;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "size");
	config.size = 1 << 20;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "size");
	longer.known = config_of(region, service);
	longer.known.size = sizeof(longer);
	longer.unknown = 1;
	refused(&longer.known, SHMURING_ERR_BAD_REQUEST, "does not know");
	config = config_of(region, service);
	config.cache_file = "./pages";
	refused(&config, SHMURING_ERR_BAD_REQUEST, "a path and a size");
	config.cache_file_bytes = 1 << 20;
	config.cache_bytes = UINT64_MAX;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "evicts");
	config.cache_bytes = 0;
	config.cache_file = "/dev/null/pages";
	refused(&config, -ENOTDIR, "/dev/null/pages");
	config.cache_file = NULL;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "a path and a size");
	config.cache_bytes = UINT64_MAX - 1;
	config.cache_file_bytes = 0;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "memory");
	config.cache_bytes = 0;
	config.prefetch_bytes = UINT64_MAX / 2;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "memory");
	config.prefetch_bytes = 0;
	config.cache_file = "./pages";
	config.cache_file_bytes = UINT64_MAX;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "memory");
	config = config_of(NULL, service);
	refused(&config, SHMURING_ERR_BAD_REQUEST, "region");
	config = config_of("/nonexistent/region", service);
	refused(&config, -ENOENT, "/nonexistent/region");
	config = config_of(region, NULL);
	refused(&config, SHMURING_ERR_BAD_REQUEST, "service");
	config = config_of(region, "floppy:a");
	refused(&config, SHMURING_ERR_BAD_REQUEST, "floppy");
	config = config_of(region, "\xff\xfe");
	refused(&config, SHMURING_ERR_BAD_REQUEST, "UTF-8");
	config = config_of(region, "store:/dev/null/x");
	refused(&config, -ENOTDIR, "store:/dev/null/x");
	config = config_of(region, service);
	config.log_level = 5;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "level");
	config = config_of(region, service);
	config.gather = 65;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "64");
	config = config_of(region, service);
	config.threads = 1 << 20;
	refused(&config, SHMURING_ERR_BAD_REQUEST, "threads");
	CHECK(shmuring_host_stop(host, 0, NULL) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_host_free(host) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_host_is_running(host) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_host_feedback(host, 0, 1) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_host_next_log(host, NULL) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_host_log_fd(host) == SHMURING_ERR_BAD_MEMORY);
	CHECK(shmuring_host_epoch(host) == 0 && shmuring_host_inherited(host) == 0);
	CHECK(other_threads() == 0);
}

static void a_page_goes_through(struct shmuring_region *region)
{
	static char image[PAGE], page[PAGE];
	const struct shmuring_rel rel = { 1663, 5, 16384, 0, { 0, 0, 0 } };
	struct shmuring_backend *backend;
	struct shmuring_completion done;
	struct shmuring_request request;
	struct shmuring_wait wait;

	memset(&wait, 0, sizeof(wait));
	wait.until = shmuring_deadline_ms(20000);
	memset(image, 'p', sizeof(image));
	CHECK(shmuring_backend_attach(region, 0, 4, &backend, NULL) == 4);
	memset(&request, 0, sizeof(request));
	request.opcode = SHMURING_OP_CREATE;
	request.spc_oid = rel.spc_oid;
	request.db_oid = rel.db_oid;
	request.rel_number = rel.rel_number;
	CHECK(shmuring_call(backend, &request, &wait, NULL, 0, &done) == 0 && (done.error == 0 || done.error == EEXIST));
	request.opcode = SHMURING_OP_EXTEND;
	request.count = 1;
	request.lsn = 10;
	request.image = image;
	CHECK(shmuring_call(backend, &request, &wait, NULL, 0, &done) == 0 && done.error == 0);
	request.opcode = SHMURING_OP_GET_PAGE;
	request.image = NULL;
	CHECK(shmuring_call(backend, &request, &wait, page, PAGE, &done) == 0 && done.error == 0);
	CHECK(memcmp(page, image, PAGE) == 0);
	CHECK(shmuring_backend_detach(backend, &wait) == 0 && shmuring_backend_free(backend) == 0);
}

static void stops(struct shmuring_host *host)
{
	struct shmuring_error err;
	int rc;

	CHECK(shmuring_host_free(host) == -EBUSY);
	do
		rc = shmuring_host_stop(host, 10, &err);
	while (rc == -ETIMEDOUT && err.code == -ETIMEDOUT);
	CHECK(rc == 0);
	CHECK(shmuring_host_is_running(host) == 0 && shmuring_host_stop(host, 0, NULL) == 0);
	/* Nobody listens any more. */
	CHECK(shmuring_host_feedback(host, 0, 100) == 0);
}

static void a_forked_child_is_refused(struct shmuring_host *host)
{
	struct shmuring_log_record record;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		CHECK(shmuring_host_stop(host, 0, NULL) == SHMURING_ERR_WRONG_PROCESS);
		CHECK(shmuring_host_free(host) == SHMURING_ERR_WRONG_PROCESS);
		CHECK(shmuring_host_is_running(host) == SHMURING_ERR_WRONG_PROCESS);
		CHECK(shmuring_host_feedback(host, 0, 1) == SHMURING_ERR_WRONG_PROCESS);
		CHECK(shmuring_host_next_log(host, &record) == SHMURING_ERR_WRONG_PROCESS);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int says(struct shmuring_host *host, const char *text)
{
	struct shmuring_log_record record;
	int said = 0;

	while (shmuring_host_next_log(host, &record) == 1) {
		CHECK(record.level >= SHMURING_LOG_ERROR && record.level <= SHMURING_LOG_INFO && record.when != 0);
		CHECK(record.dropped == 0 && record.target[0] != 0);
		said += strstr(record.text, text) != NULL;
	}
	return said;
}

static void its_life_with_a_handle_and_a_pumped_log(const char *path, const char *service, const char *cache)
{
	struct shmuring_host_config config = config_of(NULL, service);
	struct shmuring_region *region;
	struct shmuring_host *host;
	char caught[32], caught_then[32], blocked[32], pid[32];
	struct pollfd fd = { -1, POLLIN, 0 };

	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	status_of(pid, "SigCgt", caught);
	CHECK(shmuring_region_attach(path, &region, NULL) == 0);
	config.region = region;
	config.threads = 2;
	config.cache_file = cache;
	config.cache_file_bytes = 1 << 20;
	CHECK(shmuring_host_start(&config, &host, NULL) == 0);
	CHECK(shmuring_host_is_running(host) == 1);
	CHECK(shmuring_host_epoch(host) == 1 && shmuring_host_inherited(host) == 0);
	CHECK(shmuring_host_feedback(host, 0, 100) == 0);
	CHECK(shmuring_host_feedback(host, 1, 100) == SHMURING_ERR_BAD_REQUEST);
	CHECK(shmuring_region_detach(region) == SHMURING_ERR_IN_USE);
	refused(&config, -EBUSY, "another process uses it");
	config.cache_file = NULL;
	config.cache_file_bytes = 0;
	refused(&config, SHMURING_ERR_ROLE_HELD, pid);
	a_page_goes_through(region);
	CHECK(cache_hits(region) == 1 && access(cache, F_OK) == 0);
	/* A thread each for the host, the reaper and the cache file, two of the runtime, those of the store. */
	CHECK(other_threads() >= 5);
	status_of(pid, "SigCgt", caught_then);
	CHECK(strcmp(caught, caught_then) == 0);
	status_of(pid, "SigBlk", blocked);
	CHECK(strcmp(blocked, "0000000000000000") == 0);
	fd.fd = shmuring_host_log_fd(host);
	CHECK(poll(&fd, 1, 10000) == 1);
	CHECK(says(host, "serving") == 1);
	CHECK(poll(&fd, 1, 0) == 0);
	a_forked_child_is_refused(host);
	stops(host);
	CHECK(says(host, "stopped") == 1);
	CHECK(shmuring_host_free(host) == 0);
	CHECK(shmuring_region_detach(region) == 0);
	all_threads_end();
}

static pthread_mutex_t logging = PTHREAD_MUTEX_INITIALIZER;
static int logged;

static void log_it(void *user, const struct shmuring_log_record *record)
{
	pthread_mutex_lock(&logging);
	CHECK(user == &logged && record->text[0] != 0);
	logged += strstr(record->text, "serving") != NULL;
	pthread_mutex_unlock(&logging);
}

static void its_life_with_a_path_and_a_log_callback(const char *path, const char *service)
{
	struct shmuring_host_config config = config_of(path, service);
	struct shmuring_log_record record;
	struct shmuring_region *region;
	struct shmuring_host *host;

	config.cache_bytes = UINT64_MAX;
	config.log = log_it;
	config.user = &logged;
	config.log_level = SHMURING_LOG_DEBUG;
	config.grace_ms = 1000;
	/* A mistyped path must not become a second store. */
	config.service = "store:./nonexistent";
	refused(&config, -ENOENT, "no such store");
	config.service = service;
	CHECK(shmuring_host_start(&config, &host, NULL) == 0);
	CHECK(shmuring_host_epoch(host) == 2);
	CHECK(shmuring_region_attach(path, &region, NULL) == 0);
	a_page_goes_through(region);
	CHECK(cache_hits(region) == 1);
	CHECK(shmuring_region_detach(region) == 0);
	stops(host);
	CHECK(shmuring_host_next_log(host, &record) == 0);
	CHECK(shmuring_host_free(host) == 0);
	CHECK(logged == 1);
	CHECK(other_threads() == 0);
}

static int serve(const char *path, const char *service)
{
	struct shmuring_host_config config = config_of(path, service);
	struct shmuring_log_record record;
	struct shmuring_host *host;
	struct shmuring_error err;
	const struct timespec tick = { 0, 100000000 };
	sigset_t term;
	int rc;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	if (shmuring_host_start(&config, &host, &err) != 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	printf("serving epoch %u inherited %llu\n", shmuring_host_epoch(host),
	       (unsigned long long)shmuring_host_inherited(host));
	fflush(stdout);
	do
		while (shmuring_host_next_log(host, &record) == 1)
			fprintf(stderr, "%u %s: %s\n", record.level, record.target, record.text);
	while (sigtimedwait(&term, NULL, &tick) != SIGTERM && shmuring_host_is_running(host) == 1);
	rc = shmuring_host_stop(host, 60000, &err);
	printf("stopped %d\n", rc);
	return rc != 0 || shmuring_host_free(host) != 0;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	if (strcmp(argv[1], "serve") == 0)
		return serve(argv[2], argv[3]);
	configurations_that_make_no_sense_are_refused(argv[2], argv[3]);
	its_life_with_a_handle_and_a_pumped_log(argv[2], argv[3], argv[4]);
	its_life_with_a_path_and_a_log_callback(argv[2], argv[3]);
	return 0;
}
