// SPDX-License-Identifier: GPL-2.0-only
/*
 * What runs inside the guest of the laboratory: processes that share memory in every way that the
 * reverse map knows, and then stand still.
 *
 *	workload people [MIB CHILDREN]	make the processes; print "settled" when all stand still
 *	workload record [move]		write down what /proc says of every process and page frame,
 *					then, if asked to, move memory between two nodes for ever
 *
 * The recorder is a process of its own, of which nobody is a child, so that writing down the truth
 * changes nobody's memory but its own. Its form is described in lab/truth.py.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (512 * PAGE)
#define LIKELY_RW (PROT_READ | PROT_WRITE)
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

/* ------------------------------------------------------------------ common ground */

static int *standing;	/* how many processes have come to rest, shared by all */

static void fail(const char *what)
{
	printf("failed: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	for (;;)
		pause();
}

static void complain(const char *what)
{
	printf("without %s: %s\n", what, strerror(errno));
}

static char *map(size_t length, int prot, int flags, int fd, off_t offset)
{
	char *at = mmap(NULL, length, prot, flags, fd, offset);

	if (at == MAP_FAILED)
		fail("mmap");
	return at;
}

static char *anonymous(size_t pages)
{
	return map(pages * PAGE, LIKELY_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Room for `length` bytes that begins where a huge page may begin. */
static char *aligned_room(size_t length)
{
	char *room = map(length + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *start = (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));

	/* An empty range is an error to munmap(). */
	if (start > room && munmap(room, start - room))
		fail("munmap");
	if (munmap(start + length, room + HUGE - start))
		fail("munmap");
	return start;
}

/* Write into pages `from` to `to`, so that no two pages of one process are alike. */
static void put(char *at, int from, int to)
{
	for (int i = from; i < to; i++)
		*(uint64_t *)(at + i * PAGE) = (uint64_t)getpid() << 48 | (uintptr_t)(at + i * PAGE);
}

static void look(const volatile char *at, int from, int to)
{
	for (int i = from; i < to; i++)
		(void)at[i * PAGE];
}

static int file(const char *path, int pages)
{
	char block[PAGE];
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		fail(path);
	for (int i = 0; i < pages; i++) {
		memset(block, 'a' + i, PAGE);
		if (write(fd, block, PAGE) != (ssize_t)PAGE)
			fail(path);
	}
	return fd;
}

static void set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		complain(path);
	if (fd >= 0)
		close(fd);
}

static long number(const char *path)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		return -1;
	close(fd);
	return atol(text);
}

static void called(const char *name)
{
	prctl(PR_SET_NAME, name, 0, 0, 0);
}

static void rest(void)
{
	__atomic_add_fetch(standing, 1, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
}

static void wait_for(int count)
{
	while (__atomic_load_n(standing, __ATOMIC_SEQ_CST) < count)
		usleep(1000);
}

/* Start a process that does something and rests; go on when `count` more processes rest. */
static pid_t start(void (*life)(void), const char *name, int count)
{
	int before = __atomic_load_n(standing, __ATOMIC_SEQ_CST);
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		called(name);
		life();
		rest();
	}
	wait_for(before + count);
	return pid;
}

/* ------------------------------------------------------------------ memory of the first process */

enum { PAGES = 16, FILE_PAGES = 8 };

static char *plain, *shared, *shm, *private_file, *mixed, *locked, *alike, *huge, *huge_shared;
static char *pool_shared, *pool_private, *huge_shm, *deleted, *orphaned, *swapped, *swapped_shm;
static char *hidden, *unread, *untouched, *bulk;
static size_t bulk_pages;

static void map_plain(void)
{
	plain = anonymous(PAGES);
	put(plain, 0, PAGES);
	orphaned = anonymous(4);
	put(orphaned, 0, 4);
	hidden = anonymous(PAGES);
	put(hidden, 0, 12);
	if (mprotect(hidden + 4 * PAGE, 4 * PAGE, PROT_NONE))
		fail("mprotect");
	unread = anonymous(8);
	look(unread, 0, 4);	/* the zero page */
	locked = anonymous(6);
	put(locked, 0, 4);
	if (mlock(locked, 4 * PAGE))
		complain("mlock");
}

static void map_files(void)
{
	int fd;

	shared = map(FILE_PAGES * PAGE, LIKELY_RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	put(shared, 0, FILE_PAGES);
	shm = map(FILE_PAGES * PAGE, LIKELY_RW, MAP_SHARED, file("/shm/both", FILE_PAGES), 0);
	put(shm, 0, FILE_PAGES);
	fd = file("/shm/private", FILE_PAGES);
	private_file = map(FILE_PAGES * PAGE, LIKELY_RW, MAP_PRIVATE, fd, 0);
	look(private_file, 0, 6);
	put(private_file, 6, FILE_PAGES);
	fd = file("/file/mixed", FILE_PAGES);	/* a file system that is not swapped */
	mixed = map(6 * PAGE, LIKELY_RW, MAP_PRIVATE, fd, PAGE);
	look(mixed, 0, 4);
	put(mixed, 3, 6);
	deleted = map(4 * PAGE, LIKELY_RW, MAP_SHARED, file("/shm/gone", 4), 0);
	look(deleted, 0, 4);
	if (unlink("/shm/gone"))
		fail("unlink");
}

static void map_huge(void)
{
	int fd;

	huge = aligned_room(HUGE);
	huge_shared = aligned_room(HUGE);
	if (mprotect(huge, HUGE, LIKELY_RW) || mprotect(huge_shared, HUGE, LIKELY_RW))
		fail("mprotect");
	if (madvise(huge, HUGE, MADV_HUGEPAGE) || madvise(huge_shared, HUGE, MADV_HUGEPAGE))
		complain("transparent huge pages");
	put(huge, 0, 512);
	put(huge_shared, 0, 512);
	set("/sys/kernel/mm/transparent_hugepage/use_zero_page", "1");
	untouched = aligned_room(HUGE);
	if (mprotect(untouched, HUGE, LIKELY_RW) || madvise(untouched, HUGE, MADV_HUGEPAGE))
		complain("the huge zero page");
	look(untouched, 0, 1);
	mkdir("/shm/huge", 0700);
	if (mount("tmpfs", "/shm/huge", "tmpfs", 0, "huge=always"))
		complain("huge pages of shared memory");
	fd = open("/shm/huge/large", O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, 2 * HUGE))
		fail("/shm/huge/large");
	huge_shm = aligned_room(HUGE);
	if (mmap(huge_shm, HUGE, LIKELY_RW, MAP_SHARED | MAP_FIXED, fd, HUGE) == MAP_FAILED)
		fail("mmap of /shm/huge/large");
	put(huge_shm, 0, 512);
}

static void map_pool(void)
{
	int flags = MAP_ANONYMOUS | MAP_HUGETLB;

	set("/proc/sys/vm/nr_hugepages", "5");
	pool_shared = mmap(NULL, 2 * HUGE, LIKELY_RW, MAP_SHARED | flags, -1, 0);
	pool_private = mmap(NULL, HUGE, LIKELY_RW, MAP_PRIVATE | flags, -1, 0);
	if (pool_shared == MAP_FAILED || pool_private == MAP_FAILED) {
		complain("hugetlb");
		pool_shared = pool_private = NULL;
		return;
	}
	put(pool_shared, 0, 1);
	put(pool_shared, 512, 513);
	put(pool_private, 0, 1);
}

static void map_alike(void)
{
	alike = anonymous(PAGES);
	for (int i = 0; i < PAGES; i++)
		memset(alike + i * PAGE, 0x40 + (i & 3), PAGE);
	if (madvise(alike, PAGES * PAGE, MADV_MERGEABLE))
		complain("KSM");
}

/* Pages that go to the swap area; the last four come back, to be there and in the swap cache. */
static void map_swapped(void)
{
	swapped = anonymous(PAGES);
	put(swapped, 0, PAGES);
	swapped_shm = map(FILE_PAGES * PAGE, LIKELY_RW, MAP_SHARED, file("/shm/swapped", FILE_PAGES), 0);
	put(swapped_shm, 0, FILE_PAGES);
	set("/proc/sys/vm/compact_memory", "1");	/* brings pages onto the LRU lists */
	if (madvise(swapped, 12 * PAGE, MADV_PAGEOUT) ||
	    madvise(swapped_shm, 4 * PAGE, MADV_PAGEOUT))
		complain("pageout");
}

/* ------------------------------------------------------------------ what the others do */

static void grandchild(void)
{
	put(plain, 6, 8);
	put(huge_shared, 3, 4);	/* the PMD is split here, and one page copied */
}

static void child(void)
{
	put(plain, 0, 4);
	start(grandchild, "grandchild", 1);
}

static void onlooker(void)
{
	look(plain, 0, PAGES);
	look(shared, 0, FILE_PAGES);
	look(huge_shared, 0, 1);
	look(swapped, 8, 10);
	look(swapped_shm, 0, 6);
}

/* Splits VMAs by protection, and moves pages to an address other than where they were mapped. */
static void splitter(void)
{
	char *room = map(32 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mprotect(plain + 4 * PAGE, 4 * PAGE, PROT_READ))
		fail("mprotect");
	put(plain, 9, 10);
	if (mremap(plain + 12 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		   room + 8 * PAGE) == MAP_FAILED)
		fail("mremap");
	put(untouched, 7, 8);	/* splits it: zero pages, and one of its own */
	if (munmap(huge + 8 * PAGE, 4 * PAGE))	/* the rest of it is mapped by PTEs here */
		fail("munmap");
	if (mprotect(huge + 100 * PAGE, 20 * PAGE, PROT_NONE))
		fail("mprotect");
}

/* Maps a file twice, at different offsets. */
static void twice(void)
{
	int fd = open("/shm/both", O_RDWR);
	char *again = map(6 * PAGE, LIKELY_RW, MAP_SHARED, fd, 2 * PAGE);

	look(again, 0, 6);
	look(shm, 0, FILE_PAGES);
	put(private_file, 1, 3);
	look(private_file, 0, FILE_PAGES);
	if (munmap(mixed + PAGE, PAGE))
		fail("munmap");
}

static void merger(void)
{
	map_alike();
}

static void pool_user(void)
{
	look(huge_shm, 0, 512);
	if (munmap(huge_shm + 100 * PAGE, 10 * PAGE))
		fail("munmap");
	if (pool_shared) {
		look(pool_shared, 0, 1);
		look(pool_shared, 512, 513);
		put(pool_private, 0, 1);	/* a copy of a private huge page */
	}
}

static void swapper(void)
{
	put(swapped, 2, 4);
	look(swapped, 4, 6);
	if (madvise(hidden, 2 * PAGE, MADV_FREE))
		complain("MADV_FREE");
}

static void *idle(void *name)
{
	called(name);
	for (;;)
		pause();
	return NULL;
}

static void threaded(void)
{
	pthread_t thread;

	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread, NULL, idle, (void *)"thread"))
			fail("pthread_create");
	put(plain, 15, 16);
}

static void *survivor(void *unused)
{
	(void)unused;
	called("survivor");
	usleep(20000);
	rest();
	return NULL;
}

/* The leader ends; what is left of the process is another thread. */
static void headless(void)
{
	pthread_t thread;

	put(plain, 14, 15);
	if (pthread_create(&thread, NULL, survivor, NULL))
		fail("pthread_create");
	syscall(SYS_exit, 0);
}

static int sharer_life(void *unused)
{
	(void)unused;
	called("sharer");
	rest();
	return 0;
}

/* A process that is no thread and has the same address space. */
static void sharing(void)
{
	char *stack = anonymous(8);

	if (clone(sharer_life, stack + 8 * PAGE, CLONE_VM | SIGCHLD, NULL) < 0)
		fail("clone");
}

static void borrowing(void)
{
	if (!vfork()) {
		called("borrower");
		rest();
	}
}

/* Its parent is not told to wait for it. */
static void undertaker(void)
{
	pid_t pid = fork();
	char path[64], text[256] = "";

	if (!pid) {
		called("zombie");
		_exit(0);
	}
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	while (!strstr(text, ") Z")) {
		int fd = open(path, O_RDONLY);

		if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
			fail(path);
		close(fd);
		usleep(1000);
	}
}

/* Protects pages that are not there against being written: markers stand in their place. */
static void marking(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
						   UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	char *at = map(8 * PAGE, LIKELY_RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = { .range = { (uintptr_t)at, 8 * PAGE },
					 .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .range = { (uintptr_t)(at + PAGE), 4 * PAGE },
					       .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	put(at, 0, 2);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range) ||
	    ioctl(fd, UFFDIO_WRITEPROTECT, &protect))
		complain("markers of userfaultfd");
}

/* It is told that what the page held is lost; ignoring that would not be allowed. */
static void lost(int unused)
{
	(void)unused;
}

static void poisoned(void)
{
	char *at = anonymous(4);

	put(at, 0, 4);
	signal(SIGBUS, lost);
	if (madvise(at + PAGE, PAGE, MADV_HWPOISON))
		complain("poisoned memory");
}

static void heir(void)
{
	put(orphaned, 2, 3);
}

/* Ends when its child has come to rest: pages that it wrote live on in the child alone. */
static void middle(void)
{
	put(orphaned, 1, 2);
	start(heir, "heir", 1);
	_exit(0);
}

static void bulk_user(void)
{
	if (bulk_pages)
		put(bulk, 0, 16);
}

/* ------------------------------------------------------------------ the processes */

static void merge(void)
{
	const char *scans = "/sys/kernel/mm/ksm/full_scans";

	set("/sys/kernel/mm/ksm/pages_to_scan", "5000");
	set("/sys/kernel/mm/ksm/sleep_millisecs", "5");
	set("/sys/kernel/mm/ksm/run", "1");
	for (int i = 0; i < 1000 && number(scans) < 4; i++)
		usleep(5000);
	set("/sys/kernel/mm/ksm/run", "0");
	printf("merged %ld %ld\n", number("/sys/kernel/mm/ksm/pages_shared"),
	       number("/sys/kernel/mm/ksm/pages_sharing"));
	put(alike, 2, 3);	/* out of a merged page again */
}

static void bring_up_bulk(int mib, int children)
{
	bulk_pages = (size_t)mib << 8;
	if (!bulk_pages)
		return;
	bulk = anonymous(bulk_pages);
	madvise(bulk, bulk_pages * PAGE, MADV_NOHUGEPAGE);
	put(bulk, 0, bulk_pages);
	for (int i = 0; i < children; i++)
		start(bulk_user, "bulk", 1);
}

static void people(int mib, int children)
{
	pid_t dead;

	called("first");
	standing = (int *)map(PAGE, LIKELY_RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	map_plain();
	map_files();
	map_huge();
	map_pool();
	map_alike();
	map_swapped();
	start(child, "child", 2);
	start(onlooker, "onlooker", 1);
	start(splitter, "splitter", 1);
	start(twice, "twice", 1);
	start(merger, "merger", 1);
	start(pool_user, "pool", 1);
	start(swapper, "swapper", 1);
	start(threaded, "threaded", 1);
	start(headless, "headless", 1);
	start(sharing, "sharing", 2);
	start(borrowing, "borrowing", 1);
	start(undertaker, "undertaker", 1);
	start(marking, "marking", 1);
	start(poisoned, "poisoned", 1);
	dead = start(middle, "middle", 1);
	if (waitpid(dead, NULL, 0) != dead)
		fail("waitpid");
	merge();
	bring_up_bulk(mib, children);
	/* From here on nothing of the kernel's moves, merges or collapses a page by itself. */
	set("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "0");
	set("/sys/kernel/mm/transparent_hugepage/enabled", "never");
	set("/proc/sys/vm/compact_memory", "1");
	printf("settled\n");
	fflush(stdout);
	rest();
}

/* ------------------------------------------------------------------ the record */

static FILE *record;
static uint64_t window[1 << 13];

/* One run of entries of pagemap that go on where each other ends. */
static void record_entries(int pagemap, unsigned long start, unsigned long end)
{
	const uint64_t present = 1ULL << 63, swap = 1ULL << 62, frame = (1ULL << 55) - 1;
	const size_t most = sizeof window / sizeof window[0];

	for (unsigned long at = start; at < end;) {
		size_t want = (end - at) / PAGE < most ? (end - at) / PAGE : most;
		ssize_t got = pread(pagemap, window, want * 8, at / PAGE * 8);
		size_t count = got > 0 ? (size_t)got / 8 : 0;

		for (size_t i = 0, j; i < count; i = j) {
			uint64_t entry = window[i], step = entry & present ? 1 : 32;

			j = i + 1;
			if (!(entry & (present | swap)))
				continue;
			while (j < count && (window[j] & ~frame) == (entry & ~frame) &&
			       (window[j] & frame) == (entry & frame) + (j - i) * step)
				j++;
			fprintf(record, "%c %lx %lx %zx %x\n", entry & present ? 'p' : 's',
				at + i * PAGE, (unsigned long)(entry & frame), j - i,
				(unsigned)(entry >> 55));
		}
		if (!count)
			return;
		at += count * PAGE;
	}
}

static unsigned long kib(const char *line)
{
	const char *colon = strchr(line, ':');

	return colon ? strtoul(colon + 1, NULL, 10) : 0;
}

/* The VMAs of a process or thread: a line of maps and four sums of smaps, then its entries. */
static int record_space(const char *directory)
{
	char path[300], line[512], head[512] = "";
	unsigned long from, to, start = 0, end = 0, rss = 0, anon = 0, swap = 0, pool = 0;
	FILE *smaps;
	int pagemap, any = 0;

	snprintf(path, sizeof path, "%s/smaps", directory);
	smaps = fopen(path, "r");
	snprintf(path, sizeof path, "%s/pagemap", directory);
	pagemap = open(path, O_RDONLY);
	while (smaps && fgets(line, sizeof line, smaps)) {
		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			strcpy(head, line);
			start = from;
			end = to;
			rss = anon = swap = pool = 0;
		} else if (!strncmp(line, "Rss:", 4)) {
			rss = kib(line);
		} else if (!strncmp(line, "Anonymous:", 10)) {
			anon = kib(line);
		} else if (!strncmp(line, "Swap:", 5)) {
			swap = kib(line);
		} else if (!strncmp(line, "Shared_Hugetlb:", 15) ||
			   !strncmp(line, "Private_Hugetlb:", 16)) {
			pool += kib(line);
		} else if (!strncmp(line, "VmFlags:", 8)) {
			any = 1;
			fprintf(record, "v %lu %lu %lu %lu %s|%s\n", rss, anon, swap, pool, head,
				line + 8);
			record_entries(pagemap, start, end);
		}
	}
	if (smaps)
		fclose(smaps);
	if (pagemap >= 0)
		close(pagemap);
	return any;
}

static void record_process(int pid)
{
	char path[64], line[512] = "", *name, *close;
	FILE *stat;
	DIR *tasks;
	struct dirent *task;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	stat = fopen(path, "r");
	if (!stat)
		return;
	if (!fgets(line, sizeof line, stat))
		line[0] = 0;
	fclose(stat);
	name = strchr(line, '(');
	close = strrchr(line, ')');
	if (!name || !close)
		return;
	*close = 0;
	fprintf(record, "P %d %c %s%s\n", pid, close[2], name + 1, pid == getpid() ? " recorder" : "");
	snprintf(path, sizeof path, "/proc/%d", pid);
	if (record_space(path))
		return;
	/* The leader may be gone; any other thread has the memory. */
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && (task = readdir(tasks))) {
		char thread[300];

		snprintf(thread, sizeof thread, "/proc/%d/task/%s", pid, task->d_name);
		if (atoi(task->d_name) > 0 && atoi(task->d_name) != pid && record_space(thread))
			break;
	}
	if (tasks)
		closedir(tasks);
}

/* Page frames that are mapped, or that some list or cache has: runs that are alike. */
static void record_frames(void)
{
	static uint64_t counts[4096], flags[4096];
	const uint64_t kept = 1 << 5 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 21 | 1 << 22;
	int count_fd = open("/proc/kpagecount", O_RDONLY), flags_fd = open("/proc/kpageflags", O_RDONLY);

	for (uint64_t at = 0;; at += 4096) {
		ssize_t got = pread(count_fd, counts, sizeof counts, at * 8);
		size_t n = got > 0 ? (size_t)got / 8 : 0;

		if (!n || pread(flags_fd, flags, n * 8, at * 8) != (ssize_t)(n * 8))
			break;
		for (size_t i = 0, j; i < n; i = j) {
			j = i + 1;
			if (!counts[i] && !(flags[i] & kept))
				continue;
			while (j < n && counts[j] == counts[i] && flags[j] == flags[i])
				j++;
			fprintf(record, "f %lx %zx %lx %lx\n", (unsigned long)(at + i), j - i,
				(unsigned long)counts[i], (unsigned long)flags[i]);
		}
	}
	close(count_fd);
	close(flags_fd);
}

static void write_record(const char *path)
{
	static char buffer[1 << 16];
	DIR *processes = opendir("/proc");
	struct dirent *one;

	record = fopen(path, "w");
	if (!record || !processes)
		fail(path);
	setvbuf(record, buffer, _IOFBF, sizeof buffer);
	while ((one = readdir(processes)))
		if (atoi(one->d_name) > 0)
			record_process(atoi(one->d_name));
	closedir(processes);
	record_frames();
	fprintf(record, "E\n");
	if (fclose(record))
		fail(path);
}

/* ------------------------------------------------------------------ movement */

/* Every page says whose it is, so that where it is meanwhile can be told by what it holds. */
static void mark(char *at, int pages)
{
	for (int i = 0; i < pages; i++) {
		uint64_t *word = (uint64_t *)(at + i * PAGE);

		word[0] = 0x7061675f6d6f7665;
		word[1] = getpid();
		word[2] = (uintptr_t)word;
	}
}

static void move(void)
{
	enum { MOVED = 2048 };	/* in one call, most of which is not movement */
	static void *where[MOVED];
	static int nodes[MOVED], status[MOVED];
	char *mine = anonymous(MOVED);

	called("mover");
	mark(mine, MOVED);
	if (!fork()) {
		called("moved");
		for (;;)
			pause();
	}
	printf("recorded\n");
	for (int i = 0; i < MOVED; i++)
		where[i] = mine + i * PAGE;
	for (int node = 1;; node = !node) {
		for (int i = 0; i < MOVED; i++)
			nodes[i] = node;
		if (syscall(SYS_move_pages, 0, MOVED, where, nodes, status, 4 /* all that map it */) < 0)
			fail("move_pages");
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "people")) {
		people(argc > 2 ? atoi(argv[2]) : 0, argc > 3 ? atoi(argv[3]) : 0);
	} else if (!strcmp(what, "record")) {
		write_record("/dev/null");	/* so that the second time touches nothing new */
		write_record("/dev/ttyS1");
		if (argc > 2)
			move();
		printf("recorded\n");
		for (;;)
			pause();
	}
	return 2;
}
