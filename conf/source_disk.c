/* SPDX-License-Identifier: Apache-2.0
 *
 * source_disk.c - a conf_source that reads the disk.
 *
 * It owns the bytes it gave until it is freed; private keys are wiped then.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"

#define FILE_MAX (1024 * 1024) /* bytes of a certificate, key or CA file */

struct disk_file {
    struct disk_file *next;
    char *path;
    size_t len;
    char bytes[];
};

struct disk_source {
    struct conf_source source; /* first: the caller's handle */
    struct disk_file *files;
    struct disk_file *lists; /* what patterns matched */
};

static int
say(char *why, size_t why_size, const char *text)
{
    snprintf(why, why_size, "%s", text);
    return -1;
}

/* Read until the end or the limit. The number of bytes, -1 with errno. */
static ssize_t
read_all(int fd, char *buf, size_t size)
{
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, buf + len, size - len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    return (ssize_t)len;
}

/* In as much memory as it needs; realloc would leave what it moved away from as it is. */
static struct disk_file *
fit_file(struct disk_file *file, size_t len)
{
    struct disk_file *fit = malloc(sizeof(*fit) + len + 1);
    if (!fit) {
        return file;
    }
    memcpy(fit->bytes, file->bytes, len);
    OPENSSL_cleanse(file->bytes, len);
    free(file);
    return fit;
}

static int
read_opened(struct disk_source *disk, int fd, struct slice *out, char *why, size_t why_size)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
        return say(why, why_size, "not a regular file");
    }
    struct disk_file *file = malloc(sizeof(*file) + FILE_MAX + 1);
    if (!file) {
        return say(why, why_size, strerror(ENOMEM));
    }
    ssize_t n = read_all(fd, file->bytes, FILE_MAX + 1);
    if (n < 0 || n > FILE_MAX) {
        const char *text = n < 0 ? strerror(errno) : "longer than 1 MB";
        free(file);
        return say(why, why_size, text);
    }
    file = fit_file(file, (size_t)n);
    file->path = NULL;
    file->len = (size_t)n;
    file->next = disk->files;
    disk->files = file;
    *out = slice_of(file->bytes, file->len);
    return 0;
}

/* What was read under that name already: a whole configuration sees one state of a file. */
static bool
find_read(const struct disk_file *file, const char *path, struct slice *out)
{
    for (; file; file = file->next) {
        if (file->path && strcmp(file->path, path) == 0) {
            *out = slice_of(file->bytes, file->len);
            return true;
        }
    }
    return false;
}

static int
disk_read_file(struct conf_source *src, const char *path, struct slice *out, char *why,
               size_t why_size)
{
    struct disk_source *disk = (struct disk_source *)src;
    if (find_read(disk->files, path, out)) {
        return 0;
    }
    /* Not to wait for the writer of a pipe. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return say(why, why_size, strerror(errno));
    }
    int result = read_opened(disk, fd, out, why, why_size);
    close(fd);
    if (result == 0) {
        disk->files->path = strdup(path); /* NULL: it is read again */
    }
    return result;
}

/* ---- patterns ---- */

static int glob_errno; /* glob(3) hands nothing on to its callback */

/* A folder that is not there has no files; one that cannot be read is told. */
static int
on_glob_error(const char *path, int error)
{
    (void)path;
    glob_errno = error;
    return error != ENOENT && error != ENOTDIR;
}

static int
compare_paths(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The paths one after the other; they stay with the source. 0 or -1. */
static int
keep_list(struct disk_source *disk, const char *pattern, const glob_t *found, struct slice *out)
{
    struct disk_file *list = NULL;
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    for (size_t i = 0; stream && i < found->gl_pathc; i++) {
        fwrite(found->gl_pathv[i], 1, strlen(found->gl_pathv[i]) + 1, stream);
    }
    if (stream && fclose(stream) == 0) {
        list = malloc(sizeof(*list) + len);
    }
    if (list) {
        memcpy(list->bytes, text, len);
        list->len = len;
        list->path = strdup(pattern);
        list->next = disk->lists;
        disk->lists = list;
        *out = slice_of(list->bytes, len);
    }
    free(text);
    return list ? 0 : -1;
}

static int
disk_list_files(struct conf_source *src, const char *pattern, struct slice *out, char *why,
                size_t why_size)
{
    struct disk_source *disk = (struct disk_source *)src;
    glob_t found = {0};
    if (find_read(disk->lists, pattern, out)) {
        return 0;
    }
    int result = glob(pattern, GLOB_NOSORT, on_glob_error, &found);
    if (result != 0 && result != GLOB_NOMATCH) {
        say(why, why_size, strerror(result == GLOB_ABORTED ? glob_errno : ENOMEM));
    } else if (found.gl_pathc > CONF_INCLUDE_MAX) {
        result = say(why, why_size, "more than 1024 files");
    } else {
        if (found.gl_pathc > 0) {
            qsort(found.gl_pathv, found.gl_pathc, sizeof(char *), compare_paths);
        }
        result = keep_list(disk, pattern, &found, out);
        snprintf(why, why_size, "%s", result < 0 ? strerror(ENOMEM) : "");
    }
    globfree(&found);
    return result == 0 ? 0 : -1;
}

/* Whoever has a loop asks name servers: the disk knows none. */
static int
disk_resolve(struct conf_source *src, const char *name, uint16_t port, struct conf_found *out,
             int max)
{
    (void)src;
    (void)name;
    (void)port;
    (void)out;
    (void)max;
    return 0;
}

static bool
disk_has_account(struct conf_source *src, const char *name, bool is_group)
{
    (void)src;
    return is_group ? getgrnam(name) != NULL : getpwnam(name) != NULL;
}

struct conf_source *
conf_source_disk(void)
{
    struct disk_source *disk = calloc(1, sizeof(*disk));
    if (!disk) {
        abort();
    }
    disk->source.read_file = disk_read_file;
    disk->source.list_files = disk_list_files;
    disk->source.resolve = disk_resolve;
    disk->source.has_account = disk_has_account;
    return &disk->source;
}

static void
free_files(struct disk_file *file)
{
    while (file) {
        struct disk_file *next = file->next;
        OPENSSL_cleanse(file->bytes, file->len);
        free(file->path);
        free(file);
        file = next;
    }
}

void
conf_source_disk_free(struct conf_source *src)
{
    struct disk_source *disk = (struct disk_source *)src;
    if (disk) {
        free_files(disk->files);
        free_files(disk->lists);
    }
    free(disk);
}
