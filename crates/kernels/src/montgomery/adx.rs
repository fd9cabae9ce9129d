//! The inner functions for x86-64 with BMI2 and ADX.
//!
//! Eight limbs of the running sum stay in r8 to r15. A step takes one limb of the streamed number in rdx, adds it times the eight
//! limbs of the block, with the lower halves of the products in the carry chain of `adcx` and the upper halves in that of `adox`, and
//! gives the lowest limb away; the registers' roles move on by one, so that eight steps bring them back. The bound that
//! makes a step exact: t + sum + s·b ≤ (2^64 − 1) + (2^512 − 1) + (2^64 − 1)(2^512 − 1) = 2^576 − 1, nine limbs.
//!
//! No branch depends on data and no address but on lengths.

use std::arch::naked_asm;

use super::BLOCK;

/// One step: `$a` … `$h` are the sum from its lowest limb, the streamed limb is in rdx, the block at rbp; rax and rcx are
/// used. `$first` is added in a carry chain that is still free, `$low` gives the finished limb away without touching flags. The
/// new highest limb comes into `$a`.
macro_rules! step {
    ($first:expr, $low:expr, $a:literal, $b:literal, $c:literal, $d:literal, $e:literal, $f:literal, $g:literal, $h:literal) => {
        concat!(
            // Both carries are clear from here.
            "xor eax, eax\n",
            $first,
            "mulx rcx, rax, [rbp]\n adcx ",
            $a,
            ", rax\n adox ",
            $b,
            ", rcx\n",
            $low,
            "mulx rcx, rax, [rbp + 8]\n adcx ",
            $b,
            ", rax\n adox ",
            $c,
            ", rcx\n",
            "mulx rcx, rax, [rbp + 16]\n adcx ",
            $c,
            ", rax\n adox ",
            $d,
            ", rcx\n",
            "mulx rcx, rax, [rbp + 24]\n adcx ",
            $d,
            ", rax\n adox ",
            $e,
            ", rcx\n",
            "mulx rcx, rax, [rbp + 32]\n adcx ",
            $e,
            ", rax\n adox ",
            $f,
            ", rcx\n",
            "mulx rcx, rax, [rbp + 40]\n adcx ",
            $f,
            ", rax\n adox ",
            $g,
            ", rcx\n",
            "mulx rcx, rax, [rbp + 48]\n adcx ",
            $g,
            ", rax\n adox ",
            $h,
            ", rcx\n",
            "mulx rcx, rax, [rbp + 56]\n mov ",
            $a,
            ", 0\n adcx ",
            $h,
            ", rax\n adox ",
            $a,
            ", rcx\n",
            "adc ",
            $a,
            ", 0\n",
        )
    };
}

/// A step that takes limb `$i` of the stream at rsi and adds limb `$i` of the result at rdi, where it leaves the sum.
macro_rules! stream_step {
    ($i:literal, $a:literal, $($rest:literal),*) => {
        concat!(
            "mov rdx, [rsi + ", $i, "]\n",
            step!(concat!("adox ", $a, ", [rdi + ", $i, "]\n"), concat!("mov [rdi + ", $i, "], ", $a, "\n"), $a, $($rest),*),
        )
    };
}

/// A step that cancels the lowest limb with a multiple of the block, which it keeps at rsp and leaves in the result; −n^−1 is
/// behind the eight of them.
macro_rules! cancel_step {
    ($i:literal, $a:literal, $($rest:literal),*) => {
        concat!(
            "mov rdx, ", $a, "\n imul rdx, [rsp + 64]\n mov [rsp + ", $i, "], rdx\n mov [rdi + ", $i, "], rdx\n",
            step!("", "", $a, $($rest),*),
        )
    };
}

/// Eight steps of a kind, after which the registers have their first roles again.
macro_rules! eight_steps {
    ($step:ident) => {
        concat!(
            $step!("0", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
            $step!("8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "r8"),
            $step!("16", "r10", "r11", "r12", "r13", "r14", "r15", "r8", "r9"),
            $step!("24", "r11", "r12", "r13", "r14", "r15", "r8", "r9", "r10"),
            $step!("32", "r12", "r13", "r14", "r15", "r8", "r9", "r10", "r11"),
            $step!("40", "r13", "r14", "r15", "r8", "r9", "r10", "r11", "r12"),
            $step!("48", "r14", "r15", "r8", "r9", "r10", "r11", "r12", "r13"),
            $step!("56", "r15", "r8", "r9", "r10", "r11", "r12", "r13", "r14"),
        )
    };
}

macro_rules! save {
    () => {
        "push rbx\n push rbp\n push r12\n push r13\n push r14\n push r15\n"
    };
}

macro_rules! restore {
    () => {
        "pop r15\n pop r14\n pop r13\n pop r12\n pop rbp\n pop rbx\n ret\n"
    };
}

/// Adds the eight registers and the carry on top of the stack to the result; the new carry is returned.
macro_rules! finish {
    () => {
        concat!(
            "pop rax\n neg rax\n",
            "adc [rdi], r8\n adc [rdi + 8], r9\n adc [rdi + 16], r10\n adc [rdi + 24], r11\n",
            "adc [rdi + 32], r12\n adc [rdi + 40], r13\n adc [rdi + 48], r14\n adc [rdi + 56], r15\n",
            "mov eax, 0\n setc al\n",
        )
    };
}

/// # Safety
/// BMI2 and ADX; `t` good for 8·(blocks + 1) limbs, `s` for 8·blocks, `b` for 8; blocks > 0. No overlap.
#[unsafe(naked)]
unsafe extern "sysv64" fn add_blocks(t: *mut u64, s: *const u64, b: *const u64, blocks: usize, carry: u64) -> u64 {
    naked_asm!(
        save!(),
        "push r8",
        "mov rbp, rdx",
        "mov rbx, rcx",
        "xor r8d, r8d\n xor r9d, r9d\n xor r10d, r10d\n xor r11d, r11d",
        "xor r12d, r12d\n xor r13d, r13d\n xor r14d, r14d\n xor r15d, r15d",
        ".p2align 5",
        "2:",
        eight_steps!(stream_step),
        "add rsi, 64",
        "add rdi, 64",
        "dec rbx",
        "jnz 2b",
        finish!(),
        restore!(),
    )
}

/// # Safety
/// BMI2 and ADX; `t` good for 8·(blocks + 1) limbs, `n` for 8·blocks; blocks > 0. No overlap.
#[unsafe(naked)]
unsafe extern "sysv64" fn reduce_blocks(t: *mut u64, n: *const u64, inverse: u64, blocks: usize, carry: u64) -> u64 {
    naked_asm!(
        save!(),
        "push r8",
        "sub rsp, 72",
        "mov [rsp + 64], rdx",
        "mov rbp, rsi",
        "mov rbx, rcx",
        "mov r8, [rdi]\n mov r9, [rdi + 8]\n mov r10, [rdi + 16]\n mov r11, [rdi + 24]",
        "mov r12, [rdi + 32]\n mov r13, [rdi + 40]\n mov r14, [rdi + 48]\n mov r15, [rdi + 56]",
        eight_steps!(cancel_step),
        // From here the eight multiples are the block, and the rest of n streams past.
        "mov rbp, rsp",
        "add rsi, 64",
        "add rdi, 64",
        "dec rbx",
        "jz 3f",
        ".p2align 5",
        "2:",
        eight_steps!(stream_step),
        "add rsi, 64",
        "add rdi, 64",
        "dec rbx",
        "jnz 2b",
        "3:",
        "add rsp, 72",
        finish!(),
        restore!(),
    )
}

/// As `rows::add_block`.
///
/// # Safety
/// BMI2 and ADX must be there; `t` has eight limbs more than `s`, which has whole blocks and at least one.
pub(super) unsafe fn add_block(t: &mut [u64], s: &[u64], b: &[u64; BLOCK], carry: u64) -> u64 {
    // SAFETY: the caller's; references do not overlap.
    unsafe { add_blocks(t.as_mut_ptr(), s.as_ptr(), b.as_ptr(), s.len() / BLOCK, carry) }
}

/// As `rows::reduce_block`.
///
/// # Safety
/// BMI2 and ADX must be there; `t` has eight limbs more than `n`, which has whole blocks and at least one.
pub(super) unsafe fn reduce_block(t: &mut [u64], n: &[u64], negative_inverse: u64, carry: u64) -> u64 {
    // SAFETY: the caller's; references do not overlap.
    unsafe { reduce_blocks(t.as_mut_ptr(), n.as_ptr(), negative_inverse, n.len() / BLOCK, carry) }
}
