# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_layernorm_massive', tier='narrow', verdict='WARN', culprit_op=['layer_norm'],
 source_url='https://github.com/FluidInference/mobius/issues/42',
 expect='squares inside layer_norm overflow if it is run as a chain')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.n = nn.LayerNorm(32)
    def forward(self, x): return self.n(x)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 8, 32) * 2000,)
