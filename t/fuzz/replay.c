/* SPDX-License-Identifier: Apache-2.0
 *
 * replay.c - run a fuzz target over the files and folders named as arguments.
 *
 * Linked with t/fuzz/fuzz_X.c in place of libFuzzer, so that a corpus can be replayed with any
 * compiler. Each file's bytes stand in memory of exactly their size. Without arguments the corpus
 * is $srcdir/t/fuzz/corpus/X, where the program is called replay_X, as "make check" calls it.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "t/fuzz/fuzz.h"

static int
replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(size > 0 ? size : 1);
    int rc = -1;
    if (file && bytes && fread(bytes, 1, size, file) == size) {
        LLVMFuzzerTestOneInput(bytes, size);
        rc = 0;
    } else {
        perror(path);
    }
    free(bytes);
    if (file) {
        fclose(file);
    }
    return rc;
}

static int
replay(const char *path);

static int
replay_folder(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        perror(path);
        return -1;
    }
    int total = 0;
    struct dirent *entry;
    while (total >= 0 && (entry = readdir(dir)) != NULL) {
        char child[4096];
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
        int count = replay(child);
        total = count < 0 ? -1 : total + count;
    }
    closedir(dir);
    return total;
}

/* The number of inputs that path came to, or -1. */
static int
replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        return -1;
    }
    if (S_ISDIR(st.st_mode)) {
        return replay_folder(path);
    }
    return replay_file(path, (size_t)st.st_size) == 0 ? 1 : -1;
}

/* The corpus of a program that is called .../replay_X. */
static int
replay_own_corpus(const char *program)
{
    const char *slash = strrchr(program, '/');
    const char *name = strstr(slash ? slash : program, "replay_");
    const char *srcdir = getenv("srcdir");
    char path[4096];
    if (!name) {
        fprintf(stderr, "%s: name the files or folders to replay\n", program);
        return -1;
    }
    snprintf(path, sizeof(path), "%s/t/fuzz/corpus/%s", srcdir ? srcdir : ".",
             name + strlen("replay_"));
    return replay(path);
}

int
main(int argc, char **argv)
{
    int total = argc > 1 ? 0 : replay_own_corpus(argv[0]);
    for (int i = 1; i < argc && total >= 0; i++) {
        int count = replay(argv[i]);
        total = count < 0 ? -1 : total + count;
    }
    if (total <= 0) {
        fprintf(stderr, "%s: no input was replayed\n", argv[0]);
        return EXIT_FAILURE;
    }
    printf("%s: %d inputs\n", argv[0], total);
    return EXIT_SUCCESS;
}
