"""CRC-32C in hardware (SSE 4.2, ARMv8) with a table fallback chosen at import."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static uint32_t paxos_crc_table[8][256];

    static void paxos_crc_fill_table(void) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
            paxos_crc_table[0][byte] = crc;
        }
        for (uint32_t byte = 0; byte < 256; byte++)
            for (int row = 1; row < 8; row++)
                paxos_crc_table[row][byte] =
                    (paxos_crc_table[row - 1][byte] >> 8) ^ paxos_crc_table[0][paxos_crc_table[row - 1][byte] & 0xFF];
    }

    static uint32_t paxos_crc_software(uint32_t crc, const uint8_t *data, size_t size) {
        crc = ~crc;
        for (; size >= 8; size -= 8, data += 8) {
            uint64_t word;
            memcpy(&word, data, 8);
            word ^= crc;
            crc = paxos_crc_table[7][word & 0xFF] ^ paxos_crc_table[6][(word >> 8) & 0xFF]
                ^ paxos_crc_table[5][(word >> 16) & 0xFF] ^ paxos_crc_table[4][(word >> 24) & 0xFF]
                ^ paxos_crc_table[3][(word >> 32) & 0xFF] ^ paxos_crc_table[2][(word >> 40) & 0xFF]
                ^ paxos_crc_table[1][(word >> 48) & 0xFF] ^ paxos_crc_table[0][word >> 56];
        }
        for (; size; size--, data++)
            crc = (crc >> 8) ^ paxos_crc_table[0][(crc ^ *data) & 0xFF];
        return ~crc;
    }

    #if defined(__x86_64__)
    #include <nmmintrin.h>
    #define PAXOS_CRC_TARGET __attribute__((target("sse4.2")))
    #define PAXOS_CRC_WORD(crc, word) _mm_crc32_u64((crc), (word))
    #define PAXOS_CRC_BYTE(crc, byte) _mm_crc32_u8((uint32_t)(crc), (byte))
    static int paxos_crc_has_hardware(void) { return __builtin_cpu_supports("sse4.2"); }
    #elif defined(__aarch64__) && defined(__linux__)
    #include <sys/auxv.h>
    #include <asm/hwcap.h>
    #include <arm_acle.h>
    #define PAXOS_CRC_TARGET __attribute__((target("+crc")))
    #define PAXOS_CRC_WORD(crc, word) __crc32cd((uint32_t)(crc), (word))
    #define PAXOS_CRC_BYTE(crc, byte) __crc32cb((uint32_t)(crc), (byte))
    static int paxos_crc_has_hardware(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
    #else
    #define PAXOS_CRC_TARGET
    #define PAXOS_CRC_WORD(crc, word) (crc)
    #define PAXOS_CRC_BYTE(crc, byte) (crc)
    static int paxos_crc_has_hardware(void) { return 0; }
    #endif

    PAXOS_CRC_TARGET
    static uint32_t paxos_crc_hardware(uint32_t crc, const uint8_t *data, size_t size) {
        uint64_t state = (uint32_t)~crc;
        for (; size >= 8; size -= 8, data += 8) {
            uint64_t word;
            memcpy(&word, data, 8);
            state = PAXOS_CRC_WORD(state, word);
        }
        for (; size; size--, data++)
            state = PAXOS_CRC_BYTE(state, *data);
        return ~(uint32_t)state;
    }
    """
    void fill_table "paxos_crc_fill_table"() noexcept nogil
    bint has_hardware "paxos_crc_has_hardware"() noexcept nogil
    uint32_t crc_hardware "paxos_crc_hardware"(uint32_t crc, const uint8_t *data, size_t size) noexcept nogil
    uint32_t crc_software "paxos_crc_software"(uint32_t crc, const uint8_t *data, size_t size) noexcept nogil

fill_table()
cdef bint use_hardware = has_hardware()


cdef uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t size) noexcept nogil:
    if use_hardware:
        return crc_hardware(crc, data, size)
    return crc_software(crc, data, size)


def checksum(const uint8_t[::1] data not None, crc: int = 0) -> int:
    """Return the CRC-32C of ``data``, continuing ``crc``.

    >>> hex(checksum(b"123456789"))
    '0xe3069283'
    """
    if data.shape[0] == 0:
        return crc
    return crc32c(crc, &data[0], data.shape[0])


def software_checksum(const uint8_t[::1] data not None, crc: int = 0) -> int:
    """Return the same number as :func:`checksum`, always by table: what a machine without the instruction runs."""
    if data.shape[0] == 0:
        return crc
    return crc_software(crc, &data[0], data.shape[0])


def implementation() -> str:
    """Return ``"hardware"`` or ``"software"``."""
    return "hardware" if use_hardware else "software"
