# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_zero_init_norm', tier='none', verdict='PASS', culprit_op=None,
 expect='a norm of zeros with an epsilon that float16 has')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.n = nn.LayerNorm(16)
    def forward(self, x): return self.n(x)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); x = torch.randn(1, 4, 16); x[:, 2] = 0; return (x,)
