#include "textflag.h"

// func rawVfork(args *cloneArgs, size uintptr) uintptr
//
// The child goes on with this stack and overwrites what is on it, so that the
// parent keeps its return address in a register.
TEXT ·rawVfork(SB),NOSPLIT|NOFRAME,$0-24
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	$435, AX // clone3
	POPQ	R12
	SYSCALL
	PUSHQ	R12
	MOVQ	AX, ret+16(FP)
	RET

// func rawSyscall(number, a1, a2, a3, a4 uintptr) uintptr
TEXT ·rawSyscall(SB),NOSPLIT,$0-48
	MOVQ	number+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	MOVQ	a4+32(FP), R10
	MOVQ	$0, R8
	SYSCALL
	MOVQ	AX, ret+40(FP)
	RET
