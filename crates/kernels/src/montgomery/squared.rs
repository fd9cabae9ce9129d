//! Arithmetic modulo n² on digits to the base n: five products of half the length where Montgomery multiplication modulo n² takes
//! eight, and less than four where it takes more than six for a square.
//!
//! A residue x is the pair (x_0, x_1) with x = x_0 + x_1·n, both digits below n; the inner form is the pair of x·R mod n²,
//! R = 2^(64·limbs of n). To multiply:
//!
//! 1. x_0·y_0 + m·n = r·R, the Montgomery reduction of the lower digits modulo n, with its quotient m. So
//!    x_0·y_0·R^−1 ≡ r − m·R^−1·n modulo n²: the lower digit is r, or r − n where r ≥ n, which adds δ = 1 to the upper one.
//! 2. The upper digit is (x_0·y_1 + x_1·y_0 − m)·R^−1 + δ modulo n, the reduction of u = x_0·y_1 + x_1·y_0 + 2n − m + δ·R.
//!
//! **Bounds.** n has its highest bit set, R/2 < n < R. So 2n − m > 0 as m < R, and u ≥ 0. With digits of at most n − 1:
//! u ≤ 2(n−1)² + 2n + R, and its reduction is below u/R + n ≤ (2n² − 2n + 2)/R + 1 + n < 3n, as 2n(n−1)/R ≤ 2n(R−2)/R ≤ 2n − 2: two
//! subtractions of n under masks make it canonical. u is below 2^(128·limbs + 1): one carry.
//!
//! A square takes u = x_0·(2x_1 mod n) + 2n − m + δ·R.

use zeroize::Zeroizing;

use super::{Arithmetic, Modular, ModulusError, Montgomery, Workspace, limbs, rows};

/// A modulus n² whose root n is known.
#[derive(Clone, Debug)]
pub struct SquaredModulus {
    root: Montgomery,
    /// n².
    modulus: Vec<u64>,
    /// 2n, one limb more than n.
    twice: Vec<u64>,
    /// R, as a pair.
    one: Vec<u64>,
    /// R³, as a pair.
    cube: Vec<u64>,
}

impl SquaredModulus {
    /// The modulus n², with the fastest instructions of this machine.
    ///
    /// # Errors
    /// [`ModulusError`] if n is even, its highest bit is not set, or its length is no multiple of eight limbs.
    pub fn new(root: &[u64]) -> Result<Self, ModulusError> {
        Self::with(Arithmetic::detect(), root)
    }

    /// [`SquaredModulus::new`] with the instructions of choice.
    ///
    /// # Errors
    /// As [`SquaredModulus::new`].
    pub fn with(arithmetic: Arithmetic, root: &[u64]) -> Result<Self, ModulusError> {
        let root = Montgomery::with(arithmetic, root)?;
        let n = root.modulus();
        if n.last().is_none_or(|limb| limb >> 63 == 0) {
            return Err(ModulusError::NotFull);
        }
        let mut twice = [n, &[0]].concat();
        limbs::add_assign(&mut twice, n);
        let mut this = Self { modulus: limbs::product(n, n), twice, one: Vec::new(), cube: Vec::new(), root };
        let half = this.half();
        let mut power = vec![0; 2 * half];
        power[0] = 1;
        for _ in 0..64 * half {
            this.double(&mut power);
        }
        this.one.clone_from(&power);
        for _ in 0..64 * half {
            this.double(&mut power);
        }
        // R² in place of x: R²·R²·R^−1.
        this.square_assign(&mut this.workspace(), &mut power);
        this.cube = power;
        Ok(this)
    }

    /// Limbs of n.
    fn half(&self) -> usize {
        self.root.limbs()
    }

    /// n.
    #[must_use]
    pub fn root(&self) -> &[u64] {
        self.root.modulus()
    }

    /// a := a·(1 + m·n) for a in inner form and m below n: the upper digit becomes x_1 + m·x_0.
    ///
    /// # Panics
    /// If a list has another length than n² or n, here and below.
    pub fn multiply_one_plus(&self, work: &mut Workspace, a: &mut [u64], m: &[u64]) {
        let mut factor = Zeroizing::new(m.to_vec());
        self.root.enter(work, &mut factor);
        let (low, high) = a.split_at_mut(self.half());
        self.root.multiply_assign(work, &mut factor, low);
        let carry = limbs::add_assign(&mut factor, high);
        self.root.subtract_once(carry, &factor, high);
    }

    /// a := a·x·R^−2 modulo n, for a modulo n and x modulo n², both canonical: what a common factor of x with n is found with.
    pub fn multiply_root(&self, work: &mut Workspace, a: &mut [u64], x: &[u64]) {
        work.product.copy_from_slice(x);
        let mut residue = vec![0; self.half()];
        self.root.reduce(work, &mut residue);
        self.root.multiply_assign(work, a, &residue);
    }

    /// Twice a pair.
    fn double(&self, a: &mut [u64]) {
        let (low, high) = a.split_at_mut(self.half());
        let mut room = vec![0; low.len()];
        let over = self.root.double(&mut room, low);
        let mut sum = high.to_vec();
        // Below n, and with the carry at most n.
        self.root.double(&mut room, &mut sum);
        let carry = limbs::add_assign(&mut sum, &[over]);
        self.root.subtract_once(carry, &sum, high);
    }

    /// The product in the workspace is x_0·y_0: leaves r in `low`, and 2n − m + δ·R in `second`.
    fn lower_digit(&self, work: &mut Workspace) {
        let half = self.half();
        let carry = rows::reduce(self.root.arithmetic, &mut work.product, self.root(), self.root.negative_inverse);
        let (m, r) = work.product.split_at(half);
        let over = self.root.subtract_once(carry, r, &mut work.low);
        let (start, rest) = work.second.split_at_mut(half + 1);
        let borrow = rows::subtract(start, &self.twice, m);
        // The highest limb of 2n is 1, and 2n is larger than m; at most 1 + 1.
        start[half] = 1 - borrow + over;
        rest.fill(0);
    }

    /// u in `second`, with its carry: (u·R^−1 mod n) in `high`, and `low` beside it.
    fn upper_digit(&self, work: &mut Workspace, carry: u64, out: &mut [u64]) {
        let half = self.half();
        let mut top =
            carry + rows::reduce(self.root.arithmetic, &mut work.second, self.root(), self.root.negative_inverse);
        let (difference, high) = work.second.split_at_mut(half);
        for _ in 0..2 {
            let borrow = rows::subtract(difference, high, self.root());
            // Done if it did not run below zero: then what is above is one borrow less.
            let done = u64::from(top != 0) | (borrow ^ 1);
            limbs::assign_if(done, high, difference);
            top -= borrow & done;
        }
        let (low, out) = out.split_at_mut(half);
        low.copy_from_slice(&work.low);
        out.copy_from_slice(high);
    }

    /// x·y for pairs, into the lists that come with them.
    fn product(&self, work: &mut Workspace, a: &[u64], b: &[u64]) -> u64 {
        let arithmetic = self.root.arithmetic;
        let ((a0, a1), (b0, b1)) = (a.split_at(self.half()), b.split_at(self.half()));
        rows::product(arithmetic, &mut work.product, a0, b0);
        self.lower_digit(work);
        rows::add_product(arithmetic, &mut work.second, a0, b1)
            + rows::add_product(arithmetic, &mut work.second, a1, b0)
    }
}

impl Modular for SquaredModulus {
    fn limbs(&self) -> usize {
        self.modulus.len()
    }

    fn modulus(&self) -> &[u64] {
        &self.modulus
    }

    fn one(&self) -> &[u64] {
        &self.one
    }

    fn workspace(&self) -> Workspace {
        Workspace::new(self.half(), self.half())
    }

    fn multiply(&self, work: &mut Workspace, out: &mut [u64], a: &[u64], b: &[u64]) {
        let carry = self.product(work, a, b);
        self.upper_digit(work, carry, out);
    }

    fn multiply_assign(&self, work: &mut Workspace, a: &mut [u64], b: &[u64]) {
        let carry = self.product(work, a, b);
        self.upper_digit(work, carry, a);
    }

    fn square_assign(&self, work: &mut Workspace, a: &mut [u64]) {
        let (low, high) = a.split_at_mut(self.half());
        rows::square(self.root.arithmetic, &mut work.product, &mut work.diagonal, low);
        self.lower_digit(work);
        self.root.double(&mut work.diagonal[..high.len()], high);
        let carry = rows::add_product(self.root.arithmetic, &mut work.second, low, high);
        self.upper_digit(work, carry, a);
    }

    fn enter(&self, work: &mut Workspace, a: &mut [u64]) {
        assert_eq!(a.len(), self.limbs(), "a residue has as many limbs as its modulus");
        // x is below n², so below n·R: it can stand where a product of digits stands. That gives the pair of x·R^−1.
        work.product.copy_from_slice(a);
        self.lower_digit(work);
        self.upper_digit(work, 0, a);
        self.multiply_assign(work, a, &self.cube);
    }

    fn leave(&self, work: &mut Workspace, a: &mut [u64]) {
        // Times the pair (1, 0).
        let half = self.half();
        let (low, high) = a.split_at(half);
        work.product[..half].copy_from_slice(low);
        work.product[half..].fill(0);
        self.lower_digit(work);
        let carry = limbs::add_assign(&mut work.second, high);
        self.upper_digit(work, carry, a);
        rows::product(self.root.arithmetic, &mut work.product, &a[half..], self.root());
        limbs::add_assign(&mut work.product, &a[..half]);
        a.copy_from_slice(&work.product);
    }
}
