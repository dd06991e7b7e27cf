/* What the test process holds, and how to take it away. */
#ifndef PI0_TEST_PROCESS_H
#define PI0_TEST_PROCESS_H

#include "support.h"

#include <dirent.h>
#include <sys/mman.h>

/* Takes memory, and has the system put away what the library maps. */
static inline void squeeze(void)
{
    const size_t size = (size_t)64 << 20;
    char *block = malloc(size), line[1024];
    CHECK(block != NULL);
    memset(block, 1, size);
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3 && strchr(line, '/') && !strchr(rights, 'w'))
            madvise((void *)from, to - from, MADV_PAGEOUT);
    }
    fclose(maps);
    free(block);
}

/* What the process holds. */
struct sample {
    long anonymous_kib;
    unsigned threads, descriptors;
};

static inline struct sample sample(void)
{
    struct sample now = {0};
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    CHECK(status != NULL);
    while (fgets(line, sizeof line, status)) {
        sscanf(line, "RssAnon: %ld", &now.anonymous_kib);
        sscanf(line, "Threads: %u", &now.threads);
    }
    fclose(status);
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL);
    while (readdir(directory))
        now.descriptors++;
    closedir(directory);
    return now;
}

#endif
