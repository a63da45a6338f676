#define _POSIX_C_SOURCE 200809L
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle.h"

enum { PATH_BYTES = 4096, HEADER_BYTES = 512 };

static void join(char* path, const char* folder, const char* sub, const char* name) {
    const int n = snprintf(path, PATH_BYTES, "%s/%s%s%s", folder, sub, *sub ? "/" : "", name);
    if (n < 0 || n >= PATH_BYTES) die("%s: the path is too long", folder);
}

/* Nothing in a bundle is a link: not the file, not the folder that it is in. */
static int open_inside(const char* folder, const char* sub, const char* name) {
    char path[PATH_BYTES];
    join(path, folder, "", sub);
    const int directory = open(path, O_RDONLY | O_DIRECTORY | (*sub ? O_NOFOLLOW : 0));
    if (directory < 0) return -1;
    const int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    close(directory);
    return file;
}

int has_file(const char* folder, const char* sub, const char* name) {
    const int file = open_inside(folder, sub, name);
    if (file >= 0) close(file);
    return file >= 0;
}

uint8_t* read_file(const char* folder, const char* sub, const char* name, size_t exact, size_t limit, size_t* size) {
    struct stat info;
    const int file = open_inside(folder, sub, name);
    if (file < 0) die("%s: %s cannot be opened: %s", folder, name, strerror(errno));
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) die("%s: %s is no regular file", folder, name);
    const size_t n = (size_t)info.st_size;
    if (exact ? n != exact : n > limit)
        die("%s: %s has %zu bytes; %s %zu", folder, name, n, exact ? "expected" : "the limit is",
            exact ? exact : limit);
    uint8_t* data = allocate(n + 1);
    size_t done = 0;
    while (done < n) {
        const ssize_t got = read(file, data + done, n - done);
        if (got <= 0) die("%s: %s cannot be read to its end", folder, name);
        done += (size_t)got;
    }
    close(file);
    data[n] = 0;
    if (size) *size = n;
    return data;
}

static void write_all(int file, const void* data, size_t n, const char* name) {
    const uint8_t* p = data;
    while (n) {
        const ssize_t put = write(file, p, n);
        if (put <= 0) die("%s cannot be written: %s", name, strerror(errno));
        p += put, n -= (size_t)put;
    }
}

void write_file(const char* folder, const char* sub, const char* name, const void* head, size_t head_bytes,
                const void* body, size_t body_bytes) {
    char path[PATH_BYTES], temporary[PATH_BYTES];
    join(path, folder, "", "");
    mkdir(path, 0777); /* a folder that is there is fine, and what cannot be made shows when the file is opened */
    join(path, folder, "", sub);
    mkdir(path, 0777);
    join(path, folder, sub, name);
    join(temporary, folder, sub, ".tmp-solve");
    const int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
    if (file < 0) die("%s cannot be written: %s", path, strerror(errno));
    write_all(file, head, head_bytes, path);
    write_all(file, body, body_bytes, path);
    if (fsync(file) != 0 || close(file) != 0 || rename(temporary, path) != 0)
        die("%s cannot be written: %s", path, strerror(errno));
}

/* ---- tensors: one possible name and one possible header for a type and a root, so nothing is parsed */

static void tensor_name(char* name, size_t size, const gv_tensor* t, const uint8_t root[32]) {
    static const char* const dtypes[] = {"f32", "bf16", "f16", "i32", "u32", "u8", "boolean", "i8"};
    char hex[65];
    to_hex(root, 32, hex);
    size_t n = (size_t)snprintf(name, size, "%s-%s-%s", hex, dtypes[t->dtype], t->rank ? "" : "scalar");
    for (int i = 0; i < t->rank; i++)
        n += (size_t)snprintf(name + n, size - n, "%s%" PRId64, i ? "x" : "", t->shape[i]);
    snprintf(name + n, size - n, ".safetensors");
}

static size_t tensor_header(char* header, const gv_tensor* t) {
    static const char* const dtypes[] = {"F32", "BF16", "F16", "I32", "U32", "U8", "BOOL", "I8"};
    char* text = header + 8;
    size_t n = (size_t)snprintf(text, HEADER_BYTES - 8, "{\"tensor\":{\"dtype\":\"%s\",\"shape\":[", dtypes[t->dtype]);
    for (int i = 0; i < t->rank; i++)
        n += (size_t)snprintf(text + n, HEADER_BYTES - 8 - n, "%s%" PRId64, i ? "," : "", t->shape[i]);
    n += (size_t)snprintf(text + n, HEADER_BYTES - 8 - n, "],\"data_offsets\":[0,%zu]}}", t->bytes);
    for (; n % 8; n++) text[n] = ' ';
    for (int i = 0; i < 8; i++) header[i] = (char)(n >> 8 * i & 0xFF);
    return n + 8;
}

uint8_t* read_tensor(const char* folder, const gv_tensor* t, const uint8_t root[32]) {
    char name[256], header[HEADER_BYTES];
    tensor_name(name, sizeof name, t, root);
    const size_t start = tensor_header(header, t);
    uint8_t* file = read_file(folder, "tensors", name, start + t->bytes, 0, NULL);
    if (memcmp(file, header, start) != 0) die("%s: tensors/%s: another header than its type has", folder, name);
    memmove(file, file + start, t->bytes);
    for (size_t i = 0; t->dtype == GV_BOOLEAN && i < t->bytes; i++)
        if (file[i] > 1) die("%s: tensors/%s: a boolean is stored as 0 or 1", folder, name);
    uint8_t found[32];
    gv_tensor_root(file, t->bytes, found);
    if (memcmp(found, root, 32) != 0) die("%s: tensors/%s: the content has another root", folder, name);
    return file;
}

void write_tensor(const char* folder, const gv_tensor* t, const uint8_t root[32], const void* bytes) {
    char name[256], header[HEADER_BYTES];
    tensor_name(name, sizeof name, t, root);
    if (has_file(folder, "tensors", name)) return;
    write_file(folder, "tensors", name, header, tensor_header(header, t), bytes, t->bytes);
}
