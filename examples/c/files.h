/* Files of a bundle, and tensor files (docs/formats.md, sections 8 and 9), for task.c and run.c. */
#ifndef FILES_H
#define FILES_H

#include <stddef.h>
#include <stdint.h>

#include "gensyn_verify.h"

/* The whole file folder/sub/name (sub may be ""), of exactly `exact` bytes, or of at most `limit` where exact is 0. The
 * memory is a byte longer and ends with a zero. */
uint8_t* read_file(const char* folder, const char* sub, const char* name, size_t exact, size_t limit, size_t* size);
/* Writes a file whole or not at all. */
void write_file(const char* folder, const char* sub, const char* name, const void* head, size_t head_bytes,
                const void* body, size_t body_bytes);
int has_file(const char* folder, const char* sub, const char* name);

uint8_t* read_tensor(const char* folder, const gv_tensor* type, const uint8_t root[32]);
void write_tensor(const char* folder, const gv_tensor* type, const uint8_t root[32], const void* bytes);

#endif
