/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process with the communicator of shmuring inside, until SIGTERM. host REGION SERVICE, say /dev/shm/ring store:pages
 *
 *	cc host.c -o host $(pkg-config --cflags --libs shmuring)
 */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <shmuring/host.h>
#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t told;

static void tell(int signal)
{
	(void)signal;
	told = 1;
}

/* The library logs from threads of its own; what it said is taken here, and told as this program tells things. */
static void pump(struct shmuring_host *host)
{
	struct shmuring_log_record record;

	while (shmuring_host_next_log(host, &record) == 1)
		printf("%s: %s\n", record.target, record.text);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct shmuring_region_options options = { 64, 4, SHMURING_DEFAULT_BLOCK_SIZE, 0, 0, { 0 } };
	static struct shmuring_host_config config; /* zero is the default everywhere */
	struct shmuring_region *region;
	struct shmuring_host *host;
	struct shmuring_error err;
	struct pollfd log = { -1, POLLIN, 0 };
	int left;

	if (argc != 3)
		return 2;
	signal(SIGTERM, tell);
	if (shmuring_region_create(argv[1], &options, &region, &err) < 0)
		goto failed;
	config.size = sizeof(config);
	config.region = region;
	config.service = argv[2];
	if (shmuring_host_start(&config, &host, &err) < 0)
		goto failed;
	log.fd = shmuring_host_log_fd(host);
	while (!told && shmuring_host_is_running(host) == 1) {
		poll(&log, 1, 200);
		pump(host);
	}
	while ((left = shmuring_host_stop(host, 200, &err)) == -ETIMEDOUT)
		pump(host);
	pump(host);
	shmuring_host_free(host);
	return left != 0;
failed:
	fprintf(stderr, "%s\n", err.text);
	return 1;
}
