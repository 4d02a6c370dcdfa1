# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_equality_of_ids', tier='wide', verdict='FAIL', culprit_op=['equal', 'cast'],
 source_url='https://github.com/apple/coremltools/issues/2193',
 expect='ids as floats, compared: above 2048 neighbours are the same number')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(6000, 4)
    def forward(self, x): return (x.float() == 4097.).float() + 0 * self.e(x)[..., 0]
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    return (torch.tensor([[4096, 4097, 4098, 3]]),)
