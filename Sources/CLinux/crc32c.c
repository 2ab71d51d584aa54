// Part of QTasks. License: see LICENSE.
//
// CRC-32C. The instruction is chosen at run time (a `target` attribute on one function), because
// compiler flags for the whole target would bar the package as a dependency.

#include "clinux.h"

#include <string.h>

#define POLYNOMIAL 0x82F63B78u  // Castagnoli, bits reversed

static uint32_t table[256];
static int use_instruction;
static int has_instruction(void);

// Before main and any thread, so that neither needs a lock.
__attribute__((constructor)) static void prepare(void) {
    use_instruction = has_instruction();
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? POLYNOMIAL : 0);
        table[byte] = crc;
    }
}

uint32_t clinux_crc32c_table(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *next = bytes;
    crc = ~crc;
    while (count--) crc = (crc >> 8) ^ table[(crc ^ *next++) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *next = bytes;
    uint64_t sum = (uint32_t)~crc;
    for (; count >= 8; count -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        sum = _mm_crc32_u64(sum, word);
    }
    uint32_t rest = (uint32_t)sum;
    while (count--) rest = _mm_crc32_u8(rest, *next++);
    return ~rest;
}

static int has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>

__attribute__((target("crc"))) static uint32_t by_instruction(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *next = bytes;
    uint32_t sum = ~crc;
    for (; count >= 8; count -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        sum = __crc32cd(sum, word);
    }
    while (count--) sum = __crc32cb(sum, *next++);
    return ~sum;
}

static int has_instruction(void) { return (getauxval(AT_HWCAP) & (1 << 7)) != 0; }  // HWCAP_CRC32
#else
#error "QTasks runs on Linux, x86-64 or arm64."
#endif

uint32_t clinux_crc32c(uint32_t crc, const void *bytes, size_t count) {
    return use_instruction ? by_instruction(crc, bytes, count) : clinux_crc32c_table(crc, bytes, count);
}
